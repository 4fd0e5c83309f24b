"""What a model is, from its files: nothing about it is typed by hand."""
