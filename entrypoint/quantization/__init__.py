"""Quantized copies of models; a copy is a Hugging Face folder."""
