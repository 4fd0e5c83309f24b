"""Training the tiny model in the test's own process, beside torchtune's own recipes."""
