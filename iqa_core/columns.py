"""Names of the columns of manifests and outputs."""

from __future__ import annotations

__all__ = [
    "EMBEDDING",
    "HEIGHT",
    "IDENTITY",
    "IMAGE",
    "IMAGE_ID",
    "MANIFEST_FILE",
    "MANIFEST_ROW",
    "URI",
    "VIEWS",
    "VIEW_LEVELS",
    "WIDTH",
]

URI = "uri"
IMAGE = "image"
IMAGE_ID = "image_id"
MANIFEST_FILE = "manifest_file"
MANIFEST_ROW = "manifest_row"
WIDTH = "width"
HEIGHT = "height"
EMBEDDING = "embedding"
#: Features of degraded copies (V x D, flat), and how strongly each was degraded (V).
VIEWS = "views"
VIEW_LEVELS = "view_levels"

#: A row's identity is its place in the manifest: it is unique without anybody's help, and it
#: costs no memory to check (see ``iqa_core.tables.rows``).
IDENTITY = (MANIFEST_FILE, MANIFEST_ROW)
