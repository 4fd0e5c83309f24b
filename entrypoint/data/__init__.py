"""Rows to train and evaluate on."""
