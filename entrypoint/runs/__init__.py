"""Runs that have been: what their folders say, and how two of them differ."""
