"""Results as other tools open them."""
