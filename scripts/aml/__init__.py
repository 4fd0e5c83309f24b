"""Azure ML: the same `train` command as a job. The only place that imports azure-ai-ml."""
