"""What belongs to the project and not to the package: Azure ML, benchmarks, the image."""
