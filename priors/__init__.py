"""Densities over body pose and shape: load, fit and evaluate them. Imports no other package here."""
