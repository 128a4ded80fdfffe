"""Manifest, images and output on a real S3 API that fails one request in ten."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.errors import InputError
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.schema import output_schema
from tests.s3 import BUCKET, FAULTS, s3_server

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
#: IQA_S3_ROWS=2000 makes it as large as one likes; one image in a hundred is missing.
ROWS = int(os.environ.get("IQA_S3_ROWS", "300"))
MISSING = set(range(7, ROWS, 100))


@pytest.fixture(scope="module")
def store(photos):
    """A bucket with images and a manifest of which 1 % name nothing."""
    s3fs = pytest.importorskip("s3fs")
    with s3_server() as (proxy, environment, options):
        fs = s3fs.S3FileSystem(**options)
        fs.mkdir(BUCKET)
        for number in range(ROWS):
            if number not in MISSING:
                photo = list(photos.values())[number % len(photos)]
                buffer = io.BytesIO()
                Image.fromarray(photo[number % 60 :, :200][:200]).save(buffer, "JPEG")
                fs.pipe_file(f"{BUCKET}/images/{number}.jpg", buffer.getvalue())
        for place, part in enumerate((range(ROWS // 2), range(ROWS // 2, ROWS))):
            table = pa.table({"uri": [f"s3://{BUCKET}/images/{number}.jpg" for number in part]})
            buffer = io.BytesIO()
            pq.write_table(table, buffer, row_group_size=64)
            fs.pipe_file(f"{BUCKET}/manifest/{place}.parquet", buffer.getvalue())
        yield proxy, environment, fs


def iqa(environment, *words):
    return subprocess.run(
        [sys.executable, "-m", "jobs", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280 + ROWS // 4,
    )


def test_scoring_through_a_store_that_fails(store):
    proxy, environment, fs = store
    manifest, output = f"s3://{BUCKET}/manifest", f"s3://{BUCKET}/scores"
    proxy.share = 0.1
    words = ["score", "--manifest", manifest, "--output", output]
    words += ["--timeout", "3", "--retries", "8", "--commit-seconds", "2"]
    done = iqa(environment, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {*FAULTS, "none"} <= set(proxy.seen)
    proxy.share = 0.0
    assert iqa(environment, "verify", "--scores", output, "--manifest", manifest).returncode == 0
    fs.invalidate_cache()
    parts = [
        pq.read_table(io.BytesIO(fs.cat_file(path))) for path in fs.glob(f"{BUCKET}/scores/p*")
    ]
    rows = pa.concat_tables(parts).to_pylist()
    assert len(rows) == ROWS
    failed = {row["uri"]: row["status"] for row in rows if row["status"] != "ok"}
    assert failed == {f"s3://{BUCKET}/images/{n}.jpg": "not_found" for n in MISSING}
    for path in fs.find(f"{BUCKET}/scores"):
        assert b"testing-secret" not in fs.cat_file(path)
    assert "testing-secret" not in done.stdout + done.stderr
    again = iqa(environment, *words)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


def test_an_output_whose_bucket_goes_away_ends_in_one_line(store, photos, tmp_path, monkeypatch):
    _, environment, fs = store
    monkeypatch.setitem(fsspec.config.conf, "s3", json.loads(environment["FSSPEC_S3"]))
    pq.write_table(pa.table({"uri": ["a", "b"]}), tmp_path / "m.parquet")
    manifest = open_manifest(str(tmp_path / "m.parquet"))
    fs.mkdir("short-lived")
    output = Output("s3://short-lived/scores", manifest, {})
    row = {"manifest_file": "m.parquet", "manifest_row": 0, "status": "ok"}
    table = pa.Table.from_pylist([row], schema=output_schema(manifest, ()))
    with output.start({}):
        output.write(table)
        fs.rm("short-lived", recursive=True)
        with pytest.raises(
            InputError, match=r"output s3://short-lived/scores .* same command resumes$"
        ):
            output.write(table)
        with pytest.raises(InputError, match="can't be written"):
            output.finish({})
