"""Image files read and written, and images cut into tiles."""
