"""Tunecask: fine-tune, evaluate and quantize language models with torchtune."""
