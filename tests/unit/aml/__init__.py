"""Tests of scripts/aml/ that need neither Azure nor a stand-in for it."""
