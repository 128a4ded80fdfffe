"""Training of the embedded model `tiny`: photos, rendering, captions, model."""
