"""The commands: what is done with a record of options, and what is printed of the result."""
