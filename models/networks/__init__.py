"""The networks that `fit` trains, and what they are built of."""
