"""Converts encoded images to pixels as a model's input."""
