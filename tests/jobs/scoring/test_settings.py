"""Tests of jobs/scoring/settings.py: what travels to which worker."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pyarrow as pa

from iqa_core.preprocess import Preprocess
from jobs.scoring.settings import StageSettings

PREPROCESS = Preprocess(size=(20, 30), mean=(0.5,) * 3, std=(0.5,) * 3)


class Tower:
    """An image tower, which the driver alone may pickle."""

    def __reduce__(self):
        raise AssertionError("the tower travels")


SPEC = StageSettings(
    tower=Tower(),
    fetcher=None,
    preprocess=PREPROCESS,
    decoder=len,
    precision="fp32",
    batch_size=4,
    width=8,
    prompts=None,
    schema=pa.schema([("uri", pa.string())]),
    views=2,
    decode_seconds=7.0,
)


def test_the_tower_does_not_travel_with_the_settings():
    for settings in (SPEC.decode, SPEC.score):
        again = pickle.loads(pickle.dumps(settings))  # noqa: S301
        assert again == settings
        assert (again.size, again.views) == ((20, 30), 2)
    assert SPEC.decode.decode_seconds == 7.0


def test_pixel_bytes_of_a_row():
    assert SPEC.score.row_bytes() == 20 * 30 * 3 * 3
    own_sizes = replace(SPEC, preprocess=None, views=0)
    assert own_sizes.score.row_bytes() is own_sizes.decode.size is None
