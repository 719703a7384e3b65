"""What `predict` and `next` consist of: inputs, sources of activations, very large images, texts, the ranking."""
