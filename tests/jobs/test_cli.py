"""Tests of jobs/cli.py: help texts, and wrong usage that ends in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import jobs.score
from iqa_core.errors import InputError, Status
from jobs.cli import COMMANDS, main
from jobs.config import RetryKind

ROOT = Path(__file__).parents[2]


@pytest.fixture
def manifest(tmp_path):
    """A manifest of one image, in a folder of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (64, 64), "teal").save(folder / "a.png")
    pq.write_table(pa.table({"uri": ["a.png"], "height": [1]}), folder / "m.parquet")
    return folder / "m.parquet"


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def check(tmp_path, before, status, errors):
    """Return a status and the one line that was printed, if nothing was written."""
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1, errors
    assert listing(tmp_path) == before, "something was written"
    return status, errors


@pytest.fixture
def run(tmp_path, capsys):
    """Return a function that runs a command; it returns status and standard error."""

    def run(*words):
        before = listing(tmp_path)
        status = main([str(word) for word in words])
        return check(tmp_path, before, status, capsys.readouterr().err)

    return run


@pytest.mark.slow
def test_a_missing_manifest_in_a_process_of_its_own(tmp_path):
    gone = tmp_path / "gone.parquet"
    words = [sys.executable, "-m", "jobs", "score", "--manifest", gone, "--output", tmp_path / "o"]
    before = listing(tmp_path)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    status, line = check(tmp_path, before, done.returncode, done.stderr)
    assert status == 1
    assert f"--manifest {gone} does not exist: check the path" in line


def test_a_manifest_without_images(run, tmp_path):
    manifest = tmp_path / "m.parquet"
    pq.write_table(pa.table({"file": ["a.jpg"]}), manifest)
    status, line = run("score", "--manifest", manifest, "--output", tmp_path / "o")
    assert status == 1
    assert "has the columns file, but needs a uri column (string) or an image column" in line


def test_an_unknown_model(run, tmp_path, manifest):
    words = ("score", "--manifest", manifest, "--output", tmp_path / "o", "--model", "RN50/laion")
    status, line = run(*words)
    assert status == 1
    assert "tag 'laion' of --model RN50/laion is unknown: RN50 has openai" in line


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("score", "--manifest", "M", "--output", "foo://o"), "--output foo://o"),
        (("verify", "--manifest", "M", "--scores", "foo://o"), "--scores foo://o"),
        (
            ("score", "--manifest", "M", "--output", "o", "--prompts", "foo://b/p"),
            "--prompts foo://b",
        ),
        (("train", "--features", "foo://f", "--output", "p.safetensors"), "--features foo://f"),
    ],
)
def test_a_filesystem_that_is_not_known(run, manifest, words, option):
    status, line = run(*(manifest if word == "M" else word for word in words))
    assert status == 1
    assert f"{option} can't be opened: Protocol not known: foo" in line


def test_an_unknown_pair_set(run, tmp_path, manifest):
    words = ("score", "--manifest", manifest, "--output", tmp_path / "o", "--pairs", "clipiqa")
    status, line = run(*words)
    assert status == 1
    assert "--pairs 'clipiqa' is neither a named set (clip-iqa, pyiqa," in line


def test_an_output_of_another_fingerprint(run, tmp_path, manifest):
    output = tmp_path / "o"
    (output / "_run").mkdir(parents=True)
    other = {"kind": "score", "format": 1, "model": "RN50/openai"}
    (output / "_run" / "fingerprint.json").write_text(json.dumps(other))
    identity = {"manifest_file": ["m.parquet"], "manifest_row": [0], "status": ["ok"]}
    pq.write_table(pa.table(identity), output / "part-0.parquet")
    status, line = run("score", "--manifest", manifest, "--output", output)
    assert status == 1
    assert "holds another run's rows, with model 'RN50/openai' where this run has 'tiny'" in line


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["score"], 2, "the following arguments are required: --output"),
        (["rescore"], 2, "the following arguments are required: --output, --features"),
        (["verify"], 2, "the following arguments are required: --scores, --manifest"),
        (["score", "--features", "f"], 1, "--manifest and --features: both given, but exactly one"),
        (["score", "--batch-size", "many"], 2, "invalid int value: 'many'"),
        (["scores"], 2, "invalid choice: 'scores'"),
        ([], 2, "the following arguments are required: COMMAND"),
        (["score", "--batch-size", "0"], 1, "--batch-size 0 must be at least 1"),
        (["score", "--timeout", "0"], 1, "--timeout 0.0 must be above 0"),
        (["score", "--max-error-rate", "5"], 1, "--max-error-rate 5.0 must be at most 1"),
        (["score", "--keep", "label"], 1, "--keep 'label' is no column of"),
        (
            ["score", "--keep", "height"],
            1,
            "--keep height must be a column whose name no output uses itself",
        ),
        (
            ["score", "--resolution", "native", "--model", "ViT-B-32@x.pt"],
            1,
            "there is no file x.pt",
        ),
        (["score", "--address", "127.0.0.1:1"], 1, "--address 127.0.0.1:1 does not answer"),
        (["manifest", "gone", "--output", "m.parquet"], 1, "gone does not exist"),
        (["verify", "--scores", "gone"], 1, "--scores gone holds no part-*.parquet"),
    ],
)
def test_wrong_use_gives_one_line(words, status, text, manifest, tmp_path, capsys):
    if words[:1] in (["score"], ["verify"]) and len(words) > 1:
        words = [*words, "--manifest", str(manifest)]
    if words[:1] == ["score"] and len(words) > 1:
        words += ["--output", str(tmp_path / "o")]
    before = listing(tmp_path)
    try:
        ended = main(words)
    except SystemExit as exit_:
        ended = exit_.code
    said = capsys.readouterr()
    assert ended == status
    assert text in said.err
    assert said.err.count("\n") == 1
    assert listing(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_options(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: iqa {command}" in said
    assert "exit status:" in said


def test_options_state_their_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "further attempts after throttling, time-outs and network errors (default: 3)" in said
    assert "{fp32" not in said.partition("--precision")[0]
    assert "{auto,fp32,bf16,fp16}" in said


def test_rows_of_every_status_but_ok_can_be_retried():
    assert set(get_args(RetryKind)) == {status.value for status in Status} - {"ok"}


def test_an_error_spells_flags_here_and_keywords_in_a_notebook(monkeypatch, capsys):
    error = InputError(
        argument="batch_size",
        value=64,
        limit="at most 32",
        fix="lower {batch_size} or {num_actors}",
    )

    def fail(config):
        raise error

    monkeypatch.setattr(jobs.score, "run", fail)
    assert main(["score", "--manifest", "m", "--output", "o"]) == 1
    assert capsys.readouterr().err == (
        "iqa score: --batch-size 64 must be at most 32: lower --batch-size or --num-actors\n"
    )
    assert str(error) == "batch_size (64) must be at most 32: lower batch_size or num_actors"


def test_a_limit_of_an_option_is_spelled_both_ways(capsys):
    assert main(["score", "--manifest", "m", "--output", "o", "--retries", "-1"]) == 1
    assert capsys.readouterr().err == (
        "iqa score: --retries -1 must be at least 0: leave --retries out for 3\n"
    )


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (1, "exit status 1: failed"),
        (
            3,
            "exit status 3: complete, but too many rows could not be scored, or stopped in an outage",
        ),
        (143, "exit status 143: stopped; the same command resumes"),
    ],
)
def test_a_submitted_job_says_its_exit_status_last(capsys, monkeypatch, status, line):
    monkeypatch.setattr(jobs.score, "run", lambda config: status)
    words = ["score", "--manifest", "m", "--output", "o"]
    assert main(words) == status
    assert capsys.readouterr().err == ""  # a shell shows it
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")  # as Ray does
    assert main(words) == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_submitted_job_that_succeeds_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(jobs.score, "run", lambda config: 0)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert main(["score", "--manifest", "m", "--output", "o"]) == 0
    assert capsys.readouterr().err == ""
