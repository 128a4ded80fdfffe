"""Default limits on images, without the code that applies them."""

__all__ = ["DEFAULT_MAX_BYTES", "DEFAULT_MAX_PIXELS"]

#: Encoded bytes of one image.
DEFAULT_MAX_BYTES = 256 * 1024 * 1024

#: Where Pillow itself refuses to decode by default. 108-megapixel phones and 150-megapixel medium
#: format pass, and one decoded image (4 bytes per pixel in Pillow) stays below 720 MB.
DEFAULT_MAX_PIXELS = 178_956_970
