"""Manifests in, part files out."""
