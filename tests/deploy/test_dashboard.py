"""Tests of deploy/grafana/iqa.json: its form, and its queries against the exported names."""

from __future__ import annotations

import json
import re

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from jobs.scoring.metrics import METRICS, RUN_LABELS
from tests.deploy.shared import DEPLOY


def queries():
    board = json.loads((DEPLOY / "grafana/iqa.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_the_dashboard_is_one_of_grafana():
    board = json.loads((DEPLOY / "grafana/iqa.json").read_text())
    assert board["schemaVersion"] >= 36
    assert {"uid", "title", "panels", "templating", "time"} <= set(board)
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    taken = set()
    for panel in board["panels"]:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken  # panels do not overlap
        taken |= cells
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"])))
    assert used - {"__rate_interval"} <= variables


def unknown(ours, theirs, path=""):
    """Yield the places of a document that a reading of it has lost or changed."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from unknown(value, theirs.get(key), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from unknown(*pair, f"{path}[{place}]")
    elif ours != theirs:
        yield path


def read_by_grafanas_types(board):
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(board)))


def test_each_field_is_one_of_grafanas_own_types():
    board = json.loads((DEPLOY / "grafana/iqa.json").read_text())
    assert not list(unknown(board, read_by_grafanas_types(board)))
    board["panels"][0]["options"]["reduceOptions"]["calculations"] = ["last"]
    board["panels"][1]["targets"][0]["query"] = "up"
    board["refreshing"] = "10s"
    assert list(unknown(board, read_by_grafanas_types(board))) == [
        ".panels[0].options.reduceOptions.calculations",
        ".panels[1].targets[0].query",
        ".refreshing",
    ]


def test_each_query_uses_exported_names():
    ours = {}
    for name, (kind, labels, _) in METRICS.items():
        endings = ("_sum", "_count", "_bucket") if kind == "histogram" else ("",)
        ours |= {f"ray_{name}{ending}": {*RUN_LABELS, *labels} for ending in endings}
    known = {f"ray_{name}" for name in METRICS_GAUGES}
    used = set()
    for query in queries():
        names = re.findall(r"\bray_\w+", query)
        assert names, query
        used |= set(names)
        for name in names:
            assert name in ours or name in known, query
        for name, selected in re.findall(r"(ray_iqa_\w+)\{(.*?)\}", query):
            assert set(re.findall(r"(\w+)[=!]", selected)) <= ours[name], query
    assert {name.removesuffix("_sum").removesuffix("_count") for name in used if "iqa" in name} == {
        f"ray_{name}" for name in METRICS
    }


def test_each_query_is_promql():
    parse = pytest.importorskip("promql_parser").parse
    for query in queries():
        parse(query.replace("$__rate_interval", "1m"))
