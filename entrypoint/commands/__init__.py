"""The commands' bodies. What is heavy is imported when a command runs, not for --help."""
