"""TextDiff: label-efficient segmentation of medical images from a frozen diffusion model and text."""

__version__ = "0.1.0"
