"""Tests; `tests.tiny` makes the models that they run on."""
