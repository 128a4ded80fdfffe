"""Tests of jobs/scoring/repeats.py: each image once, and every row its own result."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.columns import URI
from iqa_core.duplicates.content_hash import content_hash
from iqa_core.errors import ImageError, Status
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.images.decode import Decoded
from iqa_core.tables.manifest_reading import DATA
from jobs.scoring.decode import decode_blocks, decode_rows
from jobs.scoring.pixels import pixel_blocks
from jobs.scoring.repeats import SeenFeatures, SeenImage, SeenPixels
from jobs.scoring.settings import DecodeSettings
from jobs.scoring.stage_columns import CONTENT_DIGEST

SIDE = 4
DAMAGED = b"damaged"


class Decoder:
    """An image of one value, the first byte; counts how often each content is decoded."""

    def __init__(self):
        self.decoded = []

    def __call__(self, data):
        self.decoded.append(data)
        if data == DAMAGED:
            raise ImageError(Status.DECODE_ERROR, "damaged")
        return Decoded(np.full((SIDE, SIDE, 3), data[0], np.uint8), data[0], 2 * data[0])


class Encoder:
    """Features are an image's value; counts images; fails on value 7."""

    def __init__(self):
        self.images = 0

    def score(self, block, seen):
        """Do what a scoring actor does with a block; return values by row, and failed rows."""
        block, repeats = seen.split(block)
        self.images += len(block.pixels)
        features = np.full((len(block.rows), 1), np.nan, np.float32)
        values = np.array([pixels.ravel()[0] for pixels in block.pixels], np.float32)
        features[block.places, 0] = np.where(values == 7, np.nan, values)
        failed = {int(p): "seven" for p, v in zip(block.places, values, strict=True) if v == 7}
        seen.remember(repeats, block, features)
        repeats.fill(features)
        return features[:, 0].tolist(), repeats.failed(failed), repeats.mask(len(block.rows))


def settings(decoder, folder, size=(SIDE, SIDE)):
    return DecodeSettings(
        fetcher=Fetcher(str(folder)),
        decoder=decoder,
        size=size,
        views=0,
        decode_seconds=120.0,
        dedupe=True,
    )


def table(contents=None, uris=None):
    rows = len(contents or uris)
    return pa.table(
        {
            "manifest_file": ["m"] * rows,
            "manifest_row": list(range(rows)),
            URI: pa.array(uris or [None] * rows, pa.string()),
            DATA: pa.array(contents or [None] * rows, pa.large_binary()),
        }
    )


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_a_run_without_it(tmp_path, seed, native):
    draw = random.Random(seed)
    kinds = [*(bytes([value]) * 3 for value in range(1, 12)), DAMAGED, b"\x05other"]
    decoder, encoder, seen = Decoder(), Encoder(), SeenFeatures()
    every = []
    for _ in range(4):
        contents = [draw.choice(kinds) for _ in range(30)]
        every += contents
        made = settings(decoder, tmp_path, None if native else (SIDE, SIDE))
        place = 0
        for block in decode_blocks(table(contents), made, 5 * SIDE * SIDE * 3, seen):
            assert block.rows.column("manifest_row").to_pylist()[0] == place
            statuses = block.rows.column("status").to_pylist()
            widths = block.rows.column("width").to_pylist()
            values, failed, _ = encoder.score(block, seen)
            for at, content in enumerate(contents[place : place + len(statuses)]):
                if content == DAMAGED:
                    assert statuses[at] == "decode_error"
                    assert np.isnan(values[at])
                elif content[0] == 7:
                    assert np.isnan(values[at])
                    assert failed[at] == "seven"
                else:
                    assert (statuses[at], values[at], widths[at]) == ("ok", content[0], content[0])
                    assert at not in failed
            place += len(statuses)
        assert place == 30
    good = {content for content in every if content not in (DAMAGED, b"\x07" * 3)}
    for content in good:
        assert decoder.decoded.count(content) == 1
    assert encoder.images == len(decoder.decoded) - decoder.decoded.count(DAMAGED)


def test_a_decode_task_decodes_once_and_an_actor_encodes_once(tmp_path):
    """With GPUs, the two are different processes, and an actor may get parts of blocks."""
    contents = [b"\x01", b"\x02", b"\x01", b"\x03", b"\x02", b"\x01"]
    decoder, encoder, seen = Decoder(), Encoder(), SeenFeatures()
    (decoded,) = decode_rows(table(contents), settings=settings(decoder, tmp_path))
    assert sorted(decoder.decoded) == [b"\x01", b"\x02", b"\x03"]
    found, again = [], []
    for part in (decoded.slice(0, 2), decoded.slice(2, 3), decoded.slice(5)):
        for block in pixel_blocks(part, (SIDE, SIDE)):
            assert len(block.places) == len(block.rows)  # each has its pixels, wherever it goes
            values, _, repeated = encoder.score(block, seen)
            found += values
            again += repeated.tolist()
    assert found == [1, 2, 1, 3, 2, 1]
    assert again == [False, False, True, False, True, True]
    assert encoder.images == 3


def test_a_uri_that_occurs_again_is_not_read_again(tmp_path, monkeypatch):
    for value in (1, 2):
        (tmp_path / f"{value}.img").write_bytes(bytes([value]))
    read = []
    fetch = Fetcher.fetch
    monkeypatch.setattr(Fetcher, "fetch", lambda self, uri: read.append(uri) or fetch(self, uri))
    uris = ["1.img", "gone.img", "1.img", "2.img", "gone.img", "1.img"]
    decoder = Decoder()
    (decoded,) = decode_rows(table(uris=uris), settings=settings(decoder, tmp_path))
    statuses = decoded.column("status").to_pylist()
    assert statuses == ["ok", "not_found", "ok", "ok", "not_found", "ok"]
    assert decoder.decoded == [b"\x01", b"\x02"]
    assert read.count("1.img") == read.count("2.img") == 1
    assert read.count("gone.img") == 2  # a failure is nobody else's
    hashes = decoded.column(CONTENT_DIGEST).to_pylist()
    one, two = content_hash(b"\x01"), content_hash(b"\x02")
    assert hashes == [one, None, one, two, None, one]


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first():
    image = SeenImage(1, 1, np.zeros(1000, np.uint8))
    seen = SeenPixels(most_bytes=4000)
    for name in "abc":
        seen.note(name, image)
    assert seen.find("a") is image  # used, so "b" is now the oldest
    seen.note("d", image)
    assert [name for name in "abcd" if seen.find(name)] == ["a", "c", "d"]


def test_a_forgotten_image_is_decoded_again(tmp_path):
    decoder, encoder, seen = Decoder(), Encoder(), SeenFeatures(most_bytes=2 * 260)
    for contents in ([b"\x01", b"\x02"], [b"\x03", b"\x02"], [b"\x01"]):
        for block in decode_blocks(table(contents), settings(decoder, tmp_path), 10**6, seen):
            values, _, _ = encoder.score(block, seen)
            assert values == [content[0] for content in contents]
    assert decoder.decoded == [b"\x01", b"\x02", b"\x03", b"\x01"]


def test_an_abandoned_block_leaves_nothing_behind(tmp_path):
    decoder, encoder, seen = Decoder(), Encoder(), SeenFeatures()
    made = settings(decoder, tmp_path)
    next(decode_blocks(table([b"\x01"]), made, 10**6, seen))  # and never scored
    (block,) = decode_blocks(table([b"\x01"]), made, 10**6, seen)
    assert encoder.score(block, seen)[0] == [1]


def test_hashes_alone_skip_nothing(tmp_path):
    decoder = Decoder()
    made = DecodeSettings(
        fetcher=Fetcher(str(tmp_path)),
        decoder=decoder,
        size=(SIDE, SIDE),
        views=0,
        decode_seconds=120.0,
        hashes=True,
    )
    (decoded,) = partial(decode_rows, settings=made)(table([b"\x01", b"\x01"]))
    assert decoded.column(CONTENT_DIGEST).to_pylist() == [content_hash(b"\x01")] * 2
    assert len(decoder.decoded) == 2
