"""The training loop of stage two, its losses and its recipes."""
