"""What is not read is named, with what to do."""

from __future__ import annotations

import pytest

from iqa_core.errors import ImageError
from iqa_core.images.decode import decode_image

RAW = {
    "ORF": b"IIRO\x08\0\0\0",
    "ORF, older": b"IIRS\x08\0\0\0",
    "ORF, big-endian": b"MMOR\0\0\0\x08",
    "RW2": b"IIU\0\x18\0\0\0",
    "RAF": b"FUJIFILMCCD-RAW 0201",
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "CRW": b"II\x1a\0\0\0HEAPCCDR",
    "MRW": b"\0MRM\0\0\0\0",
    "X3F": b"FOVb\3\0\2\0",
}
OTHERS = {
    "Photoshop": b"8BPS\0\1",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "PostScript with a preview": b"\xc5\xd0\xd3\xc6",
    "PDF": b"%PDF-1.7\n",
    "DDS": b"DDS |\0\0\0",
    "JPEG XL": b"\xff\x0a\xfa\x7f",
    "JPEG XL, boxed": b"\0\0\0\x0cJXL \r\n\x87\n",
    "JPEG XR": b"II\xbc\1",
    "MNG": b"\x8aMNG\r\n\x1a\n",
    "OpenEXR": b"v/1\x01\2\0\0\0",
    "Radiance": b"#?RADIANCE\n",
}


def message(data: bytes) -> str:
    with pytest.raises(ImageError) as raised:
        decode_image(data + bytes(500))
    assert raised.value.status == "unsupported"
    return raised.value.message


@pytest.mark.parametrize("data", RAW.values(), ids=RAW)
def test_raw_camera_files(data):
    assert "raw camera files are not read: develop to JPEG or TIFF first" in message(data)


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_other_kinds_of_pictures(data):
    assert "is not read: convert it to PNG, JPEG or TIFF first" in message(data)


def test_anything_else_shows_how_it_begins():
    assert "begins with b'<html>" in message(b"<html><body>404")
