"""Scores against opinions: correlations, their intervals and their differences."""
