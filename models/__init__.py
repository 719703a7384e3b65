"""What turns images and texts into numbers: backbones, networks, text encoders, and where their weights are."""
