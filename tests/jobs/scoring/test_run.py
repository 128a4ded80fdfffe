"""Tests of jobs/scoring/run.py and rescore.py: what a run with nothing to do needs, and wrong facts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import jobs.embed
import jobs.score
from iqa_core.clip.facts import ModelFacts, known_facts
from iqa_core.clip.load import load_towers
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from jobs.cli import main
from jobs.scoring.prompts import read_prompts
from jobs.scoring.run import _Run

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "ray", "open_clip", "torchvision", "aiohttp"}


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "data" / "m.parquet"
    path.parent.mkdir()
    for number in range(3):
        Image.new("RGB", (40 + number, 50), "teal").save(path.parent / f"{number}.png")
    pq.write_table(pa.table({"uri": [f"{number}.png" for number in range(3)]}), path)
    return path


def finish(config, kind, facts, **options):
    """Write the rows of a run, all of them failed, as if it had been run."""
    manifest = open_manifest(config.manifest)
    prompts = read_prompts(config) if kind == "score" else None
    run = _Run(config, kind, manifest, prompts, kind == "embed", 0, 1, (), Output)
    opened = run.open(facts, "fp32")
    assert not opened.is_done
    rows = [
        {"manifest_file": "m.parquet", "manifest_row": row, "status": "empty"} for row in range(3)
    ]
    with opened.sink.start({}):
        opened.sink.write(pa.Table.from_pylist(rows, schema=opened.schema))
    assert run.open(facts, "fp32").is_done


def again(*words):
    """Run a command in a fresh interpreter; return its status, output and modules."""
    words = [str(word) for word in words]
    code = (
        f"import json, sys\nfrom jobs.cli import main\nstatus = main({words!r})\n"
        "print(json.dumps([status, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *lines, last = done.stdout.splitlines()
    status, modules = json.loads(last)
    return status, "\n".join(lines), set(modules)


@pytest.mark.parametrize(("command", "kind"), [(jobs.score, "score"), (jobs.embed, "embed")])
def test_nothing_to_do_imports_neither_torch_nor_ray(command, kind, manifest, tmp_path):
    output = tmp_path / "o"
    config = command.Config(manifest=str(manifest), output=str(output))
    finish(config, kind, known_facts("tiny", "model"))
    words = ("--manifest", manifest, "--output", output, "--max-error-rate", 1)
    status, out, modules = again(kind, *words)
    assert status == 0
    assert f"nothing to do: all 3 rows are in {output}\n3 rows in, 3 rows out" in out
    assert modules & HEAVY == set()


def test_nothing_to_rescore_imports_no_torch(manifest, tmp_path):
    features, output = tmp_path / "f", tmp_path / "o"
    config = jobs.embed.Config(manifest=str(manifest), output=str(features))
    finish(config, "embed", known_facts("tiny", "model"))
    words = ("rescore", "--features", features, "--output", output, "--max-error-rate", 1)
    assert main([str(word) for word in words]) == 0
    status, out, modules = again(*words)
    assert status == 0
    assert "nothing to do: all 3 rows" in out
    assert modules & HEAVY == set()


def wrong(monkeypatch, module):
    """Have a command know facts of tiny that do not hold."""
    facts = known_facts("tiny", "model")
    monkeypatch.setattr(module, "known_facts", lambda *_: replace(facts, logit_scale=1.0))
    return facts


def test_a_rescore_trusts_the_loaded_model(manifest, tmp_path, monkeypatch):
    features, output = tmp_path / "f", tmp_path / "o"
    config = jobs.embed.Config(manifest=str(manifest), output=str(features))
    finish(config, "embed", known_facts("tiny", "model"))
    facts = wrong(monkeypatch, sys.modules["jobs.scoring.rescore"])
    words = ["--features", str(features), "--output", str(output), "--max-error-rate", "1"]
    assert main(["rescore", *words]) == 0
    stored = json.loads((output / "_run/fingerprint.json").read_text())
    assert stored["logit_scale"] == facts.logit_scale != 1.0


@pytest.mark.ray
def test_a_run_trusts_the_loaded_model(ray_cluster, manifest, tmp_path, monkeypatch):
    facts = wrong(monkeypatch, sys.modules["jobs.scoring.run"])
    words = ["--manifest", str(manifest), "--output", str(tmp_path / "o")]
    assert main(["score", *words]) == 0
    stored = json.loads((tmp_path / "o/_run/fingerprint.json").read_text())
    assert stored["logit_scale"] == facts.logit_scale != 1.0


def test_the_facts_of_a_file_are_remembered(manifest, tmp_path, monkeypatch):
    """A run whose output has all rows loads a model of a file once, and not again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = tmp_path / "copy.safetensors"
    shutil.copy(ROOT / "iqa_core/weights/tiny.safetensors", weights)
    model = f"tiny@{weights}"
    output = tmp_path / "o"
    config = jobs.score.Config(manifest=str(manifest), output=str(output), model=model)
    facts = ModelFacts.of(load_towers(model))
    finish(config, "score", facts)
    words = ["--manifest", str(manifest), "--output", str(output), "--model", model]
    words = ["score", *words, "--max-error-rate", "1"]
    assert known_facts(model, "model") is None
    assert main(words) == 0
    assert known_facts(model, "model") == facts
    status, out, modules = again(*words)
    assert status == 0
    assert "nothing to do" in out
    assert modules & HEAVY == set()
