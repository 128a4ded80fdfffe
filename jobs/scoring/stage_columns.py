"""Columns that travel between the stages of a run and are not written to its output."""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "CONTENT_DIGEST",
    "DECODED_ON",
    "DECODE_SECONDS",
    "DESCRIPTION",
    "DEVICE",
    "FETCH_SECONDS",
    "MODEL_SECONDS",
    "OUT_OF_MEMORY",
    "PIXELS",
    "REPEATED",
    "TURN",
    "repeated",
]

#: uint8 pixels of an image followed by those of its degraded copies; null if the image failed.
PIXELS = "_pixels"
FETCH_SECONDS = "_fetch_seconds"
DECODE_SECONDS = "_decode_seconds"
MODEL_SECONDS = "_model_seconds"
#: Batches that were halved because the device's memory was full.
OUT_OF_MEMORY = "_out_of_memory"
#: Name of the node that fetched and decoded a row.
DECODED_ON = "_decoded_on"
#: Hash of a row's encoded image: the output has it only with `--hash`.
CONTENT_DIGEST = "_content_hash"
#: What a row's image shows, as bytes; only with `--descriptors`.
DESCRIPTION = "_descriptor"
#: Whether a row got the features of an image with equal bytes.
REPEATED = "_repeated"
#: EXIF orientation of an image that is still encoded, whose bytes stand in place of its pixels; null if it
#: is not. Only with `--decode gpu`.
TURN = "_turn"
#: What scored a row: device, node and process.
DEVICE = "_device"


def repeated(text: str, rows: int) -> pa.DictionaryArray:
    """Return a column with one text in every row, held as numbers and one string."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), [text])
