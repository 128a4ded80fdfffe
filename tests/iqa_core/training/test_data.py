"""Tests of iqa_core/training/data.py: shards of the rows, local and remote."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fsspec
import numpy as np

from iqa_core.training.data import DATA, TrainingData
from tests.iqa_core.training.rows import (
    written,
)


def test_rows_are_mapped(data):
    rows = data.train()
    assert isinstance(rows.features, np.memmap)
    assert rows.features.dtype == np.float16
    assert len(rows.features) == len(rows.targets) == data.rows


def test_data_elsewhere_is_copied_to_the_worker(cache, data, prompts):
    folder = "memory://training"
    try:
        written(cache, folder, prompts, holdout=0.2, watch=["mos"])
        elsewhere = TrainingData.open(folder)
        for here, there in zip(data.train(), elsewhere.train(), strict=True):
            np.testing.assert_array_equal(here, there)
        assert dataclasses.replace(elsewhere, folder="") == dataclasses.replace(data, folder="")
    finally:
        fsspec.filesystem("memory").rm("/training", recursive=True)


def test_data_is_complete_once_its_document_is_there(data):
    assert TrainingData.open(data.folder) == data
    assert (Path(data.folder) / DATA).stat().st_mtime >= max(
        path.stat().st_mtime for path in Path(data.folder).glob("*.features")
    )
