"""Base prompt pairs, learned context vectors, and the prompt file."""
