"""Tests of jobs/train.py and jobs/training/: embed, train, score; killed workers; wrong usage."""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

from iqa_core.losses.table import LOSSES
from iqa_core.prompts.file import load_prompts
from jobs.cli import main

pytestmark = pytest.mark.ray

PAGE = Path(__file__).parents[2] / "docs/training.md"
SECTION = PAGE.read_text().partition("## Learn prompts")[2]
#: The page's commands, with the model that needs no download.
EMBED, TRAIN, SCORE = (
    shlex.split(line.replace("RN50/openai", "tiny"))[1:]
    for line in SECTION.split("```")[1].strip().splitlines()
)
IMAGES = 80
OPTIONS = ["--pairs", "pyiqa", "--list-size", "16", "--steps", "60", "--checkpoint-steps", "5"]
OPTIONS += ["--context-length", "4", "--seeds", "2", "--watch", "sharpness", "--holdout", "0.3"]
OPTIONS += ["--write", "learned"]


@pytest.fixture(scope="module")
def folder(ray_cluster, photos, tmp_path_factory):
    """A manifest of 80 images, each more blurred than the one before it, and their features."""
    folder = tmp_path_factory.mktemp("train")
    images = list(photos.values())
    for number in range(IMAGES):
        image = Image.fromarray(images[number % len(images)][:240, :240])
        image.filter(ImageFilter.GaussianBlur(number / 20)).save(folder / f"{number}.png")
    table = {"uri": [f"{n}.png" for n in range(IMAGES)]}
    table |= {"sharpness": [float(-n) for n in range(IMAGES)], "name": ["x"] * IMAGES}
    pq.write_table(pa.table(table), folder / "photos.parquet")
    with chdir(folder):
        assert main([*EMBED, "--keep", "sharpness", "name"]) == 0
    return folder


def command(folder, output, *more):
    return ["train", "--features", str(folder / "features"), "--output", str(output), *more]


@pytest.fixture(scope="module")
def trained(folder):
    """Prompts that two undisturbed workers learned."""
    output = folder / "undisturbed" / "prompts.safetensors"
    assert main(command(folder, output, *OPTIONS, "--num-workers", "2")) == 0
    return output


def test_training_leaves_what_it_says(trained):
    prompts = load_prompts(trained)
    assert (prompts.kind, prompts.context.shape[:2]) == ("shared", (2, 4))
    assert prompts.training["ended"] == "steps"
    assert prompts.training["recovered_at_steps"] == []
    assert prompts.training["num_workers"] == 2
    assert prompts.training["written"] == "learned"
    evidence = prompts.metrics["evidence"]
    assert evidence["measure"] == "known order"
    assert len(evidence["each"]) == 2
    assert evidence["difference"]["low"] <= evidence["difference"]["value"]
    assert [pair["name"] for pair in prompts.metrics["pairs"]] == [p.name for p in prompts.pairs]
    for who in ("teacher", "student"):
        found = prompts.metrics[who]
        assert set(found) == {"srcc ensemble", "srcc sharpness", "known order"}
        assert all(-1 <= value <= 1 for value in found.values())
    assert prompts.training["views"] == 4
    run = trained.with_suffix(".run")
    metrics = pq.read_table(run / "metrics.parquet").to_pandas()
    assert metrics.step.tolist() == list(range(0, 61, 5))
    assert metrics.agreement[1:].notna().all()
    assert metrics.loss[1:].notna().all()
    left = {path.name for path in run.iterdir() if path.is_file() or any(path.iterdir())}
    assert left == {"metrics.parquet", "tensorboard"}  # neither rows nor checkpoints
    page = trained.with_suffix(".html").read_text()
    assert "Held-out agreement" in page
    assert "Known order on held-out contents" in page
    assert "Health of each pair" in page
    assert "continued from" not in page
    assert "<script" not in page


def test_learned_prompts_score(trained, folder, tmp_path):
    scores = [tmp_path / "from-images", tmp_path / "from-features"]
    sources = [["--manifest", str(folder / "photos.parquet")]]
    sources += [["--features", str(folder / "features")]]
    for source, output in zip(sources, scores, strict=True):
        options = [*source, "--prompts", str(trained), "--output", str(output)]
        assert main(["score", *options]) == 0
    read = [pq.read_table(output).sort_by("manifest_row") for output in scores]
    first, second = (table.column("score").to_numpy() for table in read)
    assert len(first) == IMAGES
    np.testing.assert_allclose(first, second, atol=2e-3)  # float16 features
    assert read[0].schema.field("scores").type.num_fields == 5


def test_weights_alone_take_no_training(folder, tmp_path, capsys):
    """No worker is started, and the file says what was decided."""
    output = tmp_path / "weights.safetensors"
    words = ["--recipe", "weights", "--write", "learned", "--holdout", "0.3"]
    assert main(command(folder, output, *words, "--clean-features", "best")) == 0
    said = capsys.readouterr().out
    assert "The weighted pairs are written: " in said
    assert "pair weights: quality 0." in said
    prompts = load_prompts(output)
    assert prompts.context.shape[-2] == 0
    assert prompts.weights.sum() == pytest.approx(1)
    assert prompts.training["steps_done"] == 0
    assert not any(path.is_file() for path in output.with_suffix(".run").rglob("*"))
    scores = tmp_path / "scores"
    assert (
        main(
            [
                "rescore",
                "--features",
                str(folder / "features"),
                "--prompts",
                str(output),
                "--output",
                str(scores),
            ]
        )
        == 0
    )
    table = pq.read_table(scores)
    each = np.array([list(row.values()) for row in table.column("scores").to_pylist()])
    np.testing.assert_allclose(table.column("score").to_numpy(), each @ prompts.weights, atol=1e-6)


def test_an_output_that_cannot_be_written_costs_no_training(folder, tmp_path, capsys):
    output = tmp_path / "weights.safetensors"
    words = command(
        folder, output, "--recipe", "weights", "--write", "learned", "--init", "a photo"
    )
    words += ["--holdout", "0.3"]
    page = output.with_suffix(".html")
    page.mkdir()
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "--output" in said
    assert "can't be written" in said
    assert "the same command writes it once this is fixed" in said
    assert not output.exists()
    page.rmdir()
    assert main(words) == 0
    assert "continuing the unfinished training" in capsys.readouterr().out
    assert load_prompts(output).training["written"] == "learned"


def test_weights_of_an_unfinished_run_are_not_those_of_other_options(
    folder, tmp_path, capsys, monkeypatch
):
    def interrupted(*_):
        raise KeyboardInterrupt

    output = tmp_path / "weights.safetensors"
    words = command(folder, output, "--recipe", "weights", "--write", "learned")
    words += ["--holdout", "0.3", "--pairs"]
    with monkeypatch.context() as patch:
        patch.setattr("jobs.training.run.conclude", interrupted)
        assert main([*words, "quality"]) == 130
    assert main([*words, "pyiqa"]) == 1
    assert "since the unfinished training in --run-folder" in capsys.readouterr().err
    assert main([*words, "quality"]) == 0
    assert "continuing the unfinished training" in capsys.readouterr().out
    assert main([*words, "pyiqa"]) == 0


@pytest.mark.slow
def test_the_lines_of_the_readme(folder):
    with chdir(folder):
        assert main([*TRAIN, "--steps", "20", "--list-size", "32", "--holdout", "0.2"]) == 0
        assert main(SCORE) == 0
    scores = pq.read_table(folder / "learned-scores").column("score")
    assert len(scores) == IMAGES
    assert scores.null_count == 0


def kill_a_worker(run: Path, after_step: int) -> None:
    """Send SIGKILL to the last worker once training has passed a step."""
    deadline = time.monotonic() + 250
    while time.monotonic() < deadline:
        try:
            if json.loads((run / "progress.json").read_text())["step"] >= after_step:
                started = sorted(run.glob("start-*.json"))[-1]
                worker = json.loads(started.read_text())["workers"][-1]
                os.kill(worker["process"], signal.SIGKILL)
                return
        except FileNotFoundError:
            pass
        time.sleep(0.01)


def train_and_kill(words, run, after_step):
    killer = threading.Thread(target=kill_a_worker, args=(run, after_step))
    killer.start()
    status = main(words)
    killer.join()
    return status


@pytest.mark.slow
def test_a_killed_worker_costs_one_interval(trained, folder, tmp_path, capsys):
    output = tmp_path / "prompts.safetensors"
    words = command(folder, output, *OPTIONS, "--num-workers", "2")
    assert train_and_kill(words, output.with_suffix(".run"), 10) == 0
    (step,) = load_prompts(output).training["recovered_at_steps"]
    assert 10 <= step < 60
    assert step % 5 == 0
    sentence = f"training continued from the checkpoint of step {step}"
    assert sentence in capsys.readouterr().out
    assert sentence in output.with_suffix(".html").read_text()
    metrics = pq.read_table(output.with_suffix(".run") / "metrics.parquet")
    assert metrics.column("step").to_pylist() == list(range(0, 61, 5))
    # As if nothing had happened.
    assert np.array_equal(load_prompts(output).context, load_prompts(trained).context)


@pytest.mark.slow
def test_the_same_command_continues_a_failed_training(folder, tmp_path, capsys):
    output = tmp_path / "prompts.safetensors"
    words = command(folder, output, *OPTIONS, "--max-failures", "0")
    assert train_and_kill(words, output.with_suffix(".run"), 10) == 1
    assert "the same command resumes from the last checkpoint" in capsys.readouterr().err
    assert not output.exists()
    assert main([*words, "--seed", "1"]) == 1
    assert "seed changed from 0 to 1 since the unfinished training in" in capsys.readouterr().err
    assert main(words) == 0
    assert load_prompts(output).training["recovered_at_steps"][0] >= 10
    metrics = pq.read_table(output.with_suffix(".run") / "metrics.parquet")
    assert metrics.column("step").to_pylist() == list(range(0, 61, 5))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["--output", "p.pt"],
            "--output p.pt must be a .safetensors file: let its name end in .safetensors",
        ),
        (["--features", "gone"], "--features gone holds no features"),
        (["--pairs", "best"], "--pairs 'best' is neither a named set"),
        (
            ["--teacher", "mos"],
            "--teacher mos must be ensemble, per-pair or column:NAME",
        ),
        (
            ["--teacher", "column:mos"],
            "--teacher column:mos must be a column that was kept with the features (sharpness, name)",
        ),
        (["--watch", "name"], "--watch name must be a numeric column, not one of type string"),
        (["--loss", "mle"], "loss 'mle' is none of ranknet, margin, fidelity"),
        (
            ["--loss-options", "temperature"],
            "--loss-options temperature must be NAME=NUMBER",
        ),
        (["--loss-options", "k=1"], "loss listmle has no hyper-parameter 'k'"),
        (["--list-size", "100"], "--list-size 100 must be at most"),
        (
            ["--pairs", "clip-iqa", "--list-size", "8", "--seeds", "1", "--num-workers", "2"],
            "--num-workers 2 must be at most 1, as 1 contexts of 1 prompt pairs are shared",
        ),
        (["--clean-features", "gone"], "--features gone holds no features"),
        (["--holdout", "0.01"], "--holdout 0.01 must be large enough to hold out 8 rows, not only"),
        (["--context-length", "80"], "but the text tower takes at most"),
        (["--learning-rate", "0"], "--learning-rate 0.0 must be above 0"),
        (["--init", ""], "give some words"),
    ],
)
def test_wrong_use_gives_one_line_and_writes_nothing(folder, tmp_path, capsys, words, text):
    capsys.readouterr()
    output = tmp_path / "new" / "p.safetensors"
    assert main([*command(folder, output, "--holdout", "0.3"), *words]) == 1
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_features_of_other_weights_are_refused(folder, tmp_path, capsys):
    features = tmp_path / "features"
    (features / "_run").mkdir(parents=True)
    for path in [*(folder / "features").glob("*.parquet"), *(folder / "features/_run").iterdir()]:
        target = features / path.relative_to(folder / "features")
        target.write_bytes(path.read_bytes().replace(b'"weights": "', b'"weights": "0'))
    output = tmp_path / "p.safetensors"
    assert main(["train", "--features", str(features), "--output", str(output)]) == 1
    assert "run `iqa embed` again" in capsys.readouterr().err


@pytest.mark.slow
def test_divergence_says_what_to_do(folder, tmp_path, capsys):
    output = tmp_path / "p.safetensors"
    words = command(folder, output, *OPTIONS, "--optimizer", "sgd", "--learning-rate", "1e38")
    assert main(words) == 1
    assert "training diverged at step 5: lower --learning-rate (1e+38)" in capsys.readouterr().err
    assert not output.exists()
    assert not any(path.is_file() for path in output.with_suffix(".run").rglob("*"))


def test_the_help_names_every_loss(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # argparse breaks lines at hyphens, too
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    listed = said.partition("--loss LOSS ranking loss: ")[2].partition(", or the name of another")[
        0
    ]
    assert set(listed.split(", ")) == set(LOSSES)
