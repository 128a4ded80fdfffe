"""Opinion files, and how their rows find the scored images."""
