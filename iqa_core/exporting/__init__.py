"""Finished outputs in the formats of other tools, each written by its own library."""
