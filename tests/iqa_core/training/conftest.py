"""Caches and training data that the tests of training share; they only read them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.clip.load import load_towers
from iqa_core.columns import EMBEDDING, VIEW_LEVELS, VIEWS
from iqa_core.scoring.features import encode_prompts
from iqa_core.tables.feature_cache import feature_column
from tests.iqa_core.training.rows import (
    PAIRS,
    ROWS,
    WIDTH,
    write_cache,
    written,
)


@pytest.fixture(scope="session")
def towers():
    return load_towers("tiny")


@pytest.fixture(scope="session")
def prompts(towers):
    return encode_prompts(towers, PAIRS)


@pytest.fixture(scope="session")
def table(towers):
    """400 rows of random features, every 50th without; opinions are a prompt pair's margins."""
    generator = np.random.default_rng(3)
    features = generator.normal(size=(ROWS, WIDTH)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[::50] = np.nan
    bright, dark = towers.text.encode(["a bright photo", "a dark photo"]).numpy()
    opinion = features @ (bright - dark)
    return pa.table(
        {
            "manifest_file": ["m.parquet"] * ROWS,
            "manifest_row": pa.array(range(ROWS), pa.int64()),
            "status": ["decode_error" if n % 50 == 0 else "ok" for n in range(ROWS)],
            EMBEDDING: feature_column(features),
            "mos": pa.array([None if n % 20 == 1 else v for n, v in enumerate(opinion)]),
            "photo": [f"p{n // 10}" for n in range(ROWS)],
        }
    )


@pytest.fixture(scope="session")
def cache(table, tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("cache") / "features", table)


@pytest.fixture(scope="session")
def data(cache, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return written(cache, str(folder), prompts, holdout=0.2, watch=["mos"])


@pytest.fixture(scope="session")
def viewed(towers, tmp_path_factory):
    """A cache of 150 rows with three degraded copies each.

    By "Good photo." and "Bad photo." every copy is as bad as its level says, whatever the tower's weights
    are: the features are those texts' direction, weighted by the level, and noise.
    """
    good, bad = towers.text.encode(["Good photo.", "Bad photo."]).numpy()
    generator = np.random.default_rng(0)
    levels = np.stack([np.zeros(150), *generator.integers(1, 6, (3, 150))], axis=1)
    direction = (good - bad) / np.linalg.norm(good - bad)
    features = 0.05 * generator.normal(size=(150, 4, WIDTH))
    features += (1 - levels / 2.5)[..., None] * direction
    features = (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float32)
    table = pa.table(
        {
            "manifest_file": ["m.parquet"] * 150,
            "manifest_row": pa.array(range(150), pa.int64()),
            "status": ["ok"] * 150,
            EMBEDDING: feature_column(features[:, 0]),
            VIEWS: feature_column(features[:, 1:].reshape(150, -1)),
            VIEW_LEVELS: pa.array(levels[:, 1:].tolist(), pa.list_(pa.int8(), 3)),
        }
    )
    return write_cache(tmp_path_factory.mktemp("viewed") / "features", table)
