"""The documentation: what is generated of it, and its site (`make docs`)."""
