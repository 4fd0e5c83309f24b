"""What others load: GGUF files and model cards."""
