"""Densities over body pose and shape: load, fit and evaluate them."""
