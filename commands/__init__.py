"""The commands, one module each: options in, one function called, its result printed."""
