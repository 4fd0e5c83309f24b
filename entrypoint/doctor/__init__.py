"""What is right and wrong with a machine: facts are gathered, then judged."""
