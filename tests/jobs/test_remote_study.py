"""Manifest, evaluation and report with everything on a real S3 API: images, scores, labels, outputs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import stats

from tests.s3 import BUCKET, s3_server

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
COUNT = 40
PAIRS = pa.struct([("quality", pa.float32()), ("noise", pa.float32())])


def encoded(number):
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (6 * number, 80, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def as_parquet(table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def store():
    """A bucket with 20 images in a folder and 20 in a tar shard; `iqa` with the bucket's address."""
    s3fs = pytest.importorskip("s3fs")
    with s3_server() as (_, environment, options):
        fs = s3fs.S3FileSystem(**options)
        fs.mkdir(BUCKET)
        shard = io.BytesIO()
        with tarfile.open(fileobj=shard, mode="w") as tar:
            for number in range(COUNT):
                content = encoded(number)
                if number < COUNT // 2:
                    fs.pipe_file(f"{BUCKET}/images/{number:02}.png", content)
                else:
                    member = tarfile.TarInfo(f"{number:02}.png")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        fs.pipe_file(f"{BUCKET}/images/shard.tar", shard.getvalue())

        def iqa(*words):
            done = subprocess.run(
                [sys.executable, "-m", "jobs", *words],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "testing-secret" not in done.stdout + done.stderr
            return done.stdout

        yield fs, iqa


def write_scores(fs, name, manifest, mos, noise):
    """Write what `iqa score` would: two part files, and the plan."""
    rng = np.random.default_rng(len(name))
    score = np.clip(mos / 6 + noise * rng.normal(size=COUNT), 0, 1)
    pairs = [
        {"quality": float(a), "noise": float(b)} for a, b in zip(score, score[::-1], strict=True)
    ]
    table = pa.table(
        {
            "manifest_file": ["photos.parquet"] * COUNT,
            "manifest_row": range(COUNT),
            "image_id": manifest["image_id"],
            "uri": manifest["uri"],
            "status": ["ok"] * COUNT,
            "error": pa.nulls(COUNT, pa.string()),
            "score": pa.array(score, pa.float32()),
            "scores": pa.array(pairs, PAIRS),
        }
    )
    for part, rows in enumerate((table[:15], table[15:])):
        fs.pipe_file(f"{BUCKET}/{name}/part-{part}.parquet", as_parquet(rows))
    size = fs.size(f"{BUCKET}/photos.parquet")
    plan = {
        "manifest": f"s3://{BUCKET}/photos.parquet",
        "files": [{"name": "photos.parquet", "size": size, "rows": COUNT}],
    }
    fs.pipe_file(f"{BUCKET}/{name}/_run/plan.json", json.dumps(plan).encode())
    return score.astype(np.float32)


def test_a_study_on_s3(store):
    fs, iqa = store
    manifest_uri = f"s3://{BUCKET}/photos.parquet"
    said = iqa("manifest", f"s3://{BUCKET}/images", "--output", manifest_uri)
    assert f"{manifest_uri}: {COUNT} images" in said
    manifest = pq.read_table(io.BytesIO(fs.cat_file(f"{BUCKET}/photos.parquet")))
    assert sum("shard.tar#bytes=" in uri for uri in manifest["uri"].to_pylist()) == COUNT // 2

    mos = np.random.default_rng(0).uniform(1, 5, COUNT)
    lines = [f"{one},{m}" for one, m in zip(manifest["image_id"].to_pylist(), mos, strict=True)]
    fs.pipe_file(f"{BUCKET}/mos.csv", "\n".join(["image_id,mos", *lines]).encode())
    scores = write_scores(fs, "fixed", manifest, mos, 0.05)
    write_scores(fs, "learned", manifest, mos, 0.2)
    outputs = [f"s3://{BUCKET}/fixed", f"s3://{BUCKET}/learned"]

    words = ["--labels", f"s3://{BUCKET}/mos.csv", "--resamples", "20", "--json"]
    figure = f"s3://{BUCKET}/figures/scatter.svg"
    found = json.loads(iqa("evaluate", "--scores", *outputs, *words, "--figure", figure))
    assert found["images"] == COUNT
    wanted = stats.spearmanr(scores, mos).statistic
    assert found["metrics"][outputs[0]]["srcc"]["value"] == pytest.approx(wanted, abs=1e-6)
    fs.invalidate_cache()
    assert fs.cat_file(f"{BUCKET}/figures/scatter.svg").startswith(b"<svg")

    page = f"s3://{BUCKET}/pages/report.html"
    words = ["--scores", outputs[0], "--compare", outputs[1], "--output", page]
    said = iqa("report", *words)
    assert f"{page}: {COUNT} rows, {COUNT} scored, 0 not; {COUNT} images shown" in said
    fs.invalidate_cache()
    html = fs.cat_file(f"{BUCKET}/pages/report.html").decode()
    document = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    assert len(document["rows"]) == COUNT
    assert None not in document["pictures"]  # of the folder, and of the shard in place
    assert f"Rows in both, by their place</th><td>{COUNT}" in html
    assert "testing-secret" not in html
