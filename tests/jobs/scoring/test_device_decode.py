"""Tests of jobs/scoring/device_decode.py: JPEGs that stay encoded from the fetcher to the scoring actor."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from iqa_core.fetch.fetcher import Fetcher
from iqa_core.images.decode import decode_image
from iqa_core.images.encoded import EncodedJpeg, read_for_device
from iqa_core.preprocess import Preprocess
from iqa_core.scoring.device_jpeg import DeviceDecoder
from iqa_core.scoring.encode import encode_images
from jobs.scoring import device_decode
from jobs.scoring.decode import decode_blocks
from jobs.scoring.device_decode import decoded_block
from jobs.scoring.pixels import EncodedBlock, encoded_blocks
from jobs.scoring.settings import DecodeSettings

TOWER = Preprocess(size=(32, 48), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DECODER = DeviceDecoder(TOWER)


def encoded(kind, number, turn=1) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    stream = io.BytesIO()
    large = Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC)
    large.save(stream, kind, exif=exif)
    return stream.getvalue()


def closed(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff\xd9"


IMAGES = [
    encoded("JPEG", 0), encoded("PNG", 1), closed(encoded("JPEG", 2)), b"", encoded("JPEG", 3, turn=6),
    encoded("JPEG", 4)[:300], encoded("JPEG", 5),
]  # fmt: skip
STATUSES = ["ok", "ok", "decode_error", "empty", "ok", "decode_error", "ok"]


@pytest.fixture
def block(tmp_path):
    """What an actor gets of the images above."""
    for number, data in enumerate(IMAGES):
        (tmp_path / str(number)).write_bytes(data)
    rows = len(IMAGES)
    table = pa.table(
        {
            "manifest_file": ["m.parquet"] * rows,
            "manifest_row": list(range(rows)),
            "uri": [str(number) for number in range(rows)],
            "_data": pa.nulls(rows, pa.large_binary()),
        }
    )
    settings = DecodeSettings(
        fetcher=Fetcher(tmp_path.as_uri(), 30.0, 0, schemes=("file",)),
        decoder=partial(read_for_device, preprocess=TOWER),
        size=TOWER.size,
        views=0,
        decode_seconds=60.0,
        leaves_encoded=True,
    )
    (made,) = decode_blocks(table, settings, 1 << 30)
    (block,) = encoded_blocks(made.to_table(), TOWER.size)
    return block


def check(found):
    assert found.rows.column("status").to_pylist() == STATUSES
    reasons = found.rows.column("error").to_pylist()
    assert [reason is not None for reason in reasons] == [status != "ok" for status in STATUSES]
    assert found.places.tolist() == [0, 1, 4, 6]
    widths, heights = (found.rows.column(name).to_pylist() for name in ("width", "height"))
    assert widths == [120, 120, None, None, 90, None, 120]
    assert heights == [90, 90, None, None, 120, None, 90]
    assert isinstance(found.pixels, torch.Tensor)
    exact = [decode_image(IMAGES[place], TOWER, mode="exact").pixels for place in found.places]
    assert np.abs(found.pixels.numpy().astype(int) - exact).max() <= 2


def test_jpegs_travel_encoded_and_the_rest_as_pixels(block):
    kinds = [isinstance(image, EncodedJpeg) for image in block.images]
    assert kinds == [True, False, True, True, True]  # without the two that have failed already
    assert block.places.tolist() == [0, 1, 2, 4, 6]


def test_a_block_becomes_one_tensor(block):
    check(decoded_block(block, DECODER, "cpu", 60.0))


def test_a_tensor_is_encoded_as_an_array_is(block):
    pixels = decoded_block(block, DECODER, "cpu", 60.0).pixels

    def mean(batch):
        return torch.as_tensor(batch).float().mean(dim=(1, 2))

    for batch_size in (None, 3):
        found, failed = encode_images(mean, pixels, 3, batch_size=batch_size)
        expected, _ = encode_images(mean, pixels.numpy(), 3)
        assert not failed
        np.testing.assert_allclose(found, expected)


def test_after_a_crash_each_is_decoded_in_a_child_on_the_cpu(block, monkeypatch):
    class NoDevice(DeviceDecoder):
        def decode(self, images, device):
            raise AssertionError("the device crashed before")

    monkeypatch.setattr(device_decode, "attempt", lambda: 1)
    check(decoded_block(block, NoDevice(TOWER), "cuda", 60.0))


def test_a_block_without_pixels(block):
    empty = EncodedBlock(block.rows.slice(3, 1), np.empty(0, np.int64), [])
    found = decoded_block(empty, DECODER, "cpu", 60.0)
    assert found.pixels.shape == (0, 32, 48, 3)
    assert encode_images(lambda _: 1 / 0, found.pixels, 3)[0].shape == (0, 3)
