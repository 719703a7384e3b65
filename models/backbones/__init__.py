"""Checkpoints of diffusion networks read, and recognised by their contents; the ones that ship are here too."""
