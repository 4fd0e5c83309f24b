"""Evaluation by the lm-eval harness."""
