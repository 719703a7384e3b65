"""How well a segmentation fits: pure functions on arrays."""
