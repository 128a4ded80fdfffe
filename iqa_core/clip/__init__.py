"""The model: image and text towers, their weights, and how both are loaded."""
