"""Ranking losses on logit margins."""
