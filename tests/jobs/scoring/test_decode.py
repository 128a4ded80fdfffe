"""Tests of jobs/scoring/decode.py: limits, and workers without model code."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from iqa_core.fetch.fetcher import Fetcher
from iqa_core.images.decode import decode_image
from iqa_core.preprocess import Preprocess
from iqa_core.tables.manifest_reading import DATA
from jobs.scoring import decode
from jobs.scoring.decode import decode_rows
from jobs.scoring.settings import DecodeSettings

ROOT = Path(__file__).parents[3]
PREPROCESS = Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
#: What a decode worker has no use for.
MODEL_CODE = (
    "torch",
    "torchvision",
    "open_clip",
    "iqa_core.clip",
    "iqa_core.scoring",
    "jobs.scoring.actor",
    "jobs.scoring.tower",
)


def is_model_code(module):
    return any(module == name or module.startswith(f"{name}.") for name in MODEL_CODE)


def settings_of(**limits):
    return DecodeSettings(
        fetcher=Fetcher("s3://bucket/m", **limits),
        decoder=partial(decode_image, preprocess=PREPROCESS),
        size=PREPROCESS.size,
        views=0,
        decode_seconds=120.0,
    )


def test_limits_hold_for_images_inside_the_manifest():
    settings = settings_of(max_bytes=10)
    table = pa.table(
        {
            "manifest_file": ["m"] * 2,
            "manifest_row": [0, 1],
            "uri": pa.nulls(2, pa.string()),
            DATA: pa.array([bytes(11), bytes(10)], pa.large_binary()),
        }
    )
    (decoded,) = decode_rows(table, settings=settings)
    assert decoded.column("status").to_pylist() == ["too_large", "unsupported"]


def test_rows_that_fail_slowly_do_not_wait_for_the_others(monkeypatch):
    settings = settings_of()
    table = pa.table(
        {
            "manifest_file": ["m"] * 3,
            "manifest_row": [0, 1, 2],
            "uri": pa.nulls(3, pa.string()),
            DATA: pa.array([b"no image"] * 3, pa.large_binary()),
        }
    )
    assert [len(block) for block in decode_rows(table, settings=settings)] == [3]
    monkeypatch.setattr(decode, "_MOST_SECONDS", 0.0)
    blocks = list(decode_rows(table, settings=settings))
    assert [block["manifest_row"].to_pylist() for block in blocks] == [[0], [1], [2]]


@pytest.mark.parametrize("stage", ["read", "decode", "pixels", "settings", "plan", "pool"])
def test_the_modules_of_light_stages_import_no_model_code(stage):
    code = f"import jobs.scoring.{stage}, json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = json.loads(run.stdout)
    assert f"jobs.scoring.{stage}" in modules
    assert [module for module in modules if is_model_code(module)] == []


def decode_and_report(payload, table):
    """Decode in a worker; return the statuses, and the worker's modules."""
    import ray
    import ray.data

    (decoded,) = ray.cloudpickle.loads(payload)(table)
    return decoded.column("status").to_pylist(), sorted(sys.modules)


@pytest.mark.ray
def test_a_decode_worker_loads_only_what_it_needs(ray_cluster, tmp_path):
    Image.new("RGB", (80, 60), "olive").save(tmp_path / "a.jpg")
    settings = DecodeSettings(
        fetcher=Fetcher(str(tmp_path)),
        decoder=partial(decode_image, preprocess=PREPROCESS),
        size=PREPROCESS.size,
        views=2,
        decode_seconds=120.0,
    )
    table = pa.table(
        {
            "manifest_file": ["m"],
            "manifest_row": [0],
            "uri": ["a.jpg"],
            DATA: pa.nulls(1, pa.large_binary()),
        }
    )
    payload = ray_cluster.cloudpickle.dumps(partial(decode_rows, settings=settings))
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        # Workers of another environment are not shared with other tests, which may import torch there.
        task = ray_cluster.remote(num_cpus=1, max_calls=1)(decode_and_report)
        task = task.options(runtime_env={"env_vars": {"IQA_TEST": "decode worker"}})
        statuses, modules = ray_cluster.get(task.remote(payload, table))
    finally:
        ray_cluster.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert statuses == ["ok"]
    assert "jobs.scoring.decode" in modules
    assert [module for module in modules if is_model_code(module)] == []
    assert "aiohttp" not in modules  # no image was fetched by HTTP
