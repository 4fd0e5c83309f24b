"""The built-in data set and the generator that wrote it."""
