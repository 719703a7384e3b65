"""The head's exact shortcuts: each file says which identity it computes by, and tests hold it to the definition."""
