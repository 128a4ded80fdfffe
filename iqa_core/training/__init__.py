"""Learning context vectors from the order of images."""
