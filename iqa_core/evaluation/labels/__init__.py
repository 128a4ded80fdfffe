"""Files of opinion scores, and how their rows are matched with the scored images."""
