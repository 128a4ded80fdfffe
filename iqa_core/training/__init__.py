"""Training: context vectors learned from cached features and the order of images."""
