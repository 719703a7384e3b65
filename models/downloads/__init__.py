"""Weights and data fetched, resumed and verified."""
