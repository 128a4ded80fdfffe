"""One image's bytes, safely: what may be read, from where, and how often it is tried."""
