"""The two stages and what they are made of: data, backbone, text, head, metrics."""
