"""Tests of jobs/scoring/metrics.py: what Ray serves to Prometheus after a run is what its summary says."""

from __future__ import annotations

import json
import re
import time
import urllib.request

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from jobs.cli import main
from jobs.scoring.metrics import METRICS

pytestmark = [pytest.mark.ray, pytest.mark.slow]
#: No other test has this shard: counters of one process are those of all its runs.
SHARD = "0/1"
LINE = re.compile(r"^ray_(iqa_\w+)\{(.*)\} (\S+)$", re.MULTILINE)


def scraped():
    """Return the values that Ray serves on this node for the runs of SHARD: by name and own label."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in LINE.findall(text):
        pairs = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if pairs.get("shard") == SHARD and not name.endswith("_bucket"):
            found[name, pairs.get("status") or pairs.get("stage") or ""] = float(value)
    return found


def rows_in(found):
    return sum(value for (name, _), value in found.items() if name == "iqa_rows_total")


def test_scraped_metrics_equal_the_summary(ray_cluster, tmp_path, photos):
    for number in range(40):
        crop = photos["chelsea"][number : number + 200, :240]
        Image.fromarray(crop).save(tmp_path / f"{number}.jpg")
    uris = [f"{number}.jpg" for number in range(42)]  # two of them are not there
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    words = ["score", "--manifest", tmp_path / "m.parquet", "--output", tmp_path / "o"]
    words += ["--shard", SHARD, "--cpu-price", "3600", "--max-error-rate", "1"]
    assert main([str(word) for word in words]) == 0
    # Processes report to their node's agent every few seconds.
    deadline = time.monotonic() + 60
    while rows_in(found := scraped()) < 42 and time.monotonic() < deadline:
        time.sleep(1)
    summary = json.loads((tmp_path / "o/_run/summary-0000-of-0001.json").read_text())
    report = json.loads((tmp_path / "o/_run/progress-0000-of-0001.json").read_text())
    statuses = {label: value for (name, label), value in found.items() if name == "iqa_rows_total"}
    assert statuses == summary["statuses"] == report["statuses"] == {"ok": 40, "not_found": 2}
    for stage, seconds in summary["stage_seconds"].items():
        assert found["iqa_stage_seconds_total", stage] == pytest.approx(seconds, abs=2e-3)
    assert found["iqa_actors", ""] == len(summary["devices"]) == report["actors"]
    assert found["iqa_nodes", ""] == 1
    assert found["iqa_rows_to_do", ""] == 0
    assert found["iqa_cost_total", ""] == pytest.approx(report["cost"], rel=0.01)
    assert found["iqa_block_rows_count", ""] >= 1
    names = {name for name, _ in found}
    histograms = {name for name, (kind, _, _) in METRICS.items() if kind == "histogram"}
    assert set(METRICS) - histograms <= names
    assert report["state"] == "finished"
    assert main(["status", "--scores", str(tmp_path / "o")]) == 0
