"""Duplicates: images with equal bytes, and images with almost equal features."""
