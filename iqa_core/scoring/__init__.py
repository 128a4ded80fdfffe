"""From image and text features to scores."""
