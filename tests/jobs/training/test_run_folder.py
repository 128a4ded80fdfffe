"""Tests of jobs/training/run_folder.py: what determines the result, and whose folder it is. No Ray."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.prompts.pairs import load_pairs
from iqa_core.storage.folder import Folder
from iqa_core.tables.feature_cache import FeatureCache
from iqa_core.training.data import FILES
from iqa_core.training.split import plan_training_data
from jobs.cli import main
from jobs.training.config import Config
from jobs.training.run import _contexts, settings_of
from jobs.training.run_folder import (
    CHECKPOINTS,
    METRICS,
    RUN,
    TENSORBOARD,
    begin_training,
    describe_training,
    tidy,
)

FEATURES = str(Path(__file__).parents[2] / "data/v0.1/features")
OPTIONS = Config(features=FEATURES, output="p.safetensors", holdout=0.35, list_size=4)

#: Another value of each option that changes the result; the rest only changes where training runs.
OTHER = {
    "pairs": "clip-iqa",
    "teacher": "per-pair",
    "watch": ("mos",),
    "loss": "plcc",
    "loss_options": ("temperature=0.5",),
    "order_weight": 0.5,
    "list_size": 2,
    "seeds": 2,
    "recipe": "seed",
    "clean_features": "best",
    "lower_is_better": True,
    "meaning": 0.25,
    "pair_weights": True,
    "write": "learned",
    "context_length": 4,
    "position": "end",
    "context": "per-side",
    "init": "a photo of",
    "logit_scale": 7.0,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "weight_decay": 0.1,
    "warmup": 0.2,
    "steps": 7,
    "epochs": 3.0,
    "checkpoint_steps": 3,
    "holdout": 0.5,
    "holdout_by": "mos",
    "seed": 1,
    "num_workers": 2,
}
ELSEWHERE = {
    "wait_minutes",
    "min_workers",
    "shared_filesystem",
    "output",
    "gpus_per_worker",
    "max_failures",
    "run_folder",
    "address",
}


@pytest.fixture(scope="module")
def towers():
    return load_towers("tiny")


def described(towers, config):
    cache, pairs = FeatureCache(config.features), load_pairs(config.pairs)
    plan = plan_training_data(
        cache,
        len(pairs),
        teacher=config.teacher,
        holdout=config.holdout,
        holdout_by=config.holdout_by,
        watch=config.watch,
    )
    ensemble = _contexts(config, towers, pairs)
    scale = config.logit_scale or towers.logit_scale
    settings = settings_of(config, scale, plan.data.rows)
    return describe_training(
        config, cache, settings, plan.data, ensemble, config.clean_features or "own"
    )


def test_every_option_is_considered():
    fields = {field.name for field in dataclasses.fields(Config)}
    assert fields == set(OTHER) | ELSEWHERE | {"features"}


@pytest.mark.parametrize("name", OTHER)
def test_another_value_makes_another_training(towers, name):
    base = dataclasses.replace(OPTIONS, loss="listnet") if name == "loss_options" else OPTIONS
    before = described(towers, base)
    assert described(towers, base) == before
    assert described(towers, dataclasses.replace(base, **{name: OTHER[name]})) != before


def test_each_option_keeps_its_name(towers):
    document = described(towers, OPTIONS)
    for name in set(OTHER) - {"pairs", "loss_options", "epochs", "steps", "logit_scale"}:
        value = getattr(OPTIONS, name)
        if value is not None:
            assert document[name] == (list(value) if isinstance(value, tuple) else value)
    assert document["loss_package"] == ""


def test_a_folder_of_the_same_training_is_continued(tmp_path, towers):
    folder, document = Folder.of(str(tmp_path)), described(towers, OPTIONS)
    begin_training(folder, document)
    assert folder.list("*") == [RUN]
    folder.write("train.features", b"its own")
    begin_training(folder, document)
    assert folder.read("train.features") == b"its own"


def test_a_folder_of_another_training_is_refused(tmp_path, towers):
    folder, document = Folder.of(str(tmp_path)), described(towers, OPTIONS)
    folder.write_json(RUN, document)
    with pytest.raises(
        InputError, match="seed changed from 0 to 1 since the unfinished training in"
    ):
        begin_training(folder, {**document, "seed": 1})


def test_features_that_were_made_again_make_another_training(tmp_path, towers):
    """With as many rows as before, but in files of other names."""
    cache = tmp_path / "features"
    shutil.copytree(FEATURES, cache)
    options = dataclasses.replace(OPTIONS, features=str(cache))
    before = described(towers, options)
    part = next(cache.glob("part-*"))
    part.rename(part.with_name("part-2" + part.name.removeprefix("part-1")))
    after = described(towers, options)
    assert {key for key in after if after[key] != before[key]} == {"feature_files"}


def test_a_folder_of_an_earlier_version_is_refused(tmp_path, towers):
    """Before run folders had a format of their own, options had other names in them."""
    folder, document = Folder.of(str(tmp_path)), described(towers, OPTIONS)
    before = {**document, "interval": document["checkpoint_steps"], "version": "0.1.0"}
    del before["run_folder_format"], before["checkpoint_steps"]
    folder.write_json(RUN, before)
    with pytest.raises(
        InputError, match=r"of another version of this program \(0.1.0\): finish it"
    ):
        begin_training(folder, document)


def test_tidy_keeps_what_is_wanted_and_what_is_not_its_own(tmp_path):
    folder = Folder.of(str(tmp_path))
    for name in (*FILES, RUN, METRICS, "start-0000.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    for name in (CHECKPOINTS, TENSORBOARD):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("")
    tidy(folder, keep=(METRICS, TENSORBOARD))
    assert {path.name for path in tmp_path.iterdir()} == {METRICS, TENSORBOARD, "notes.txt"}
    tidy(folder, keep=())
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt"}


@pytest.mark.parametrize("name", [f"{CHECKPOINTS}/model.pt", f"{TENSORBOARD}/curve", "data.json"])
def test_a_folder_with_files_of_others_is_refused(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    with pytest.raises(InputError, match="which no training of this program left there"):
        begin_training(Folder.of(str(tmp_path)), {})
    assert (tmp_path / name).read_text() == "precious"


def test_what_a_finished_training_left_is_replaced(tmp_path):
    (tmp_path / METRICS).write_text("")
    (tmp_path / TENSORBOARD).mkdir()
    begin_training(Folder.of(str(tmp_path)), {"version": "1"})
    assert [path.name for path in tmp_path.iterdir()] == [RUN]


def test_rows_that_near_duplicates_leave_may_be_too_few_for_a_list(tmp_path, capsys):
    """That is seen before a worker starts, and the folder is free for other options."""
    features = tmp_path / "features"
    shutil.copytree(FEATURES, features)
    (part,) = features.glob("part-*")
    table = pq.read_table(part)
    rows = pa.array(range(len(table), 2 * len(table)), pa.int64())
    again = table.set_column(table.schema.get_field_index("manifest_row"), "manifest_row", rows)
    pq.write_table(again, part.with_name("part-0001-again.parquet"))
    words = ["train", "--features", str(features), "--output", str(tmp_path / "p.safetensors")]
    assert main([*words, "--list-size", "30", "--holdout", "0.3"]) == 1
    said = capsys.readouterr().err
    assert "--list-size 30 must be at most" in said
    assert "rows to train on" not in said
    assert not any(path.is_file() for path in (tmp_path / "p.run").rglob("*"))
