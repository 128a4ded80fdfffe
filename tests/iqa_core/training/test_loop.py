"""Training: the same gradient on any number of workers, the same bytes from the same seed."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from iqa_core import Scorer
from iqa_core.clip.load import load_towers
from iqa_core.errors import InputError
from iqa_core.images.degrade import degraded_views
from iqa_core.losses.ranking import make_loss
from iqa_core.prompts.file import load_prompts, save_prompts
from iqa_core.prompts.learner import PromptLearner, learned_prompts
from iqa_core.prompts.pairs import NAMED_PAIRS, PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.scoring.margins import image_scores_f64, pair_margins, pair_scores_f64
from iqa_core.scoring.margins import margins as scoring_margins
from iqa_core.tables.feature_cache import (
    EMBEDDING,
    VIEW_LEVELS,
    VIEWS,
    FeatureCache,
    feature_column,
    features_of,
    views_of,
)
from iqa_core.training.data import DATA, TrainingData, plan_training_data, write_training_data
from iqa_core.training.known_order import known_order_agreement
from iqa_core.training.loop import (
    Settings,
    State,
    World,
    agreement,
    epoch_order,
    held_out_margins,
    learning_rate,
    list_loss,
    steps_per_epoch,
    train,
)

ROOT = Path(__file__).parents[3]
PAIRS = NAMED_PAIRS["pyiqa"][:3]
ROWS = 400
WIDTH = 128


@pytest.fixture(scope="module")
def towers():
    return load_towers("tiny")


@pytest.fixture(scope="module")
def prompts(towers):
    return encode_prompts(towers, PAIRS)


def write_cache(folder, table, rows_per_part=90):
    """Write a feature cache as `iqa embed` leaves it."""
    (folder / "_run").mkdir(parents=True)
    (folder / "_run" / "fingerprint.json").write_text(json.dumps({"model": "tiny"}))
    (folder / "_run" / "plan.json").write_text("{}")
    for number, start in enumerate(range(0, len(table), rows_per_part)):
        part = table.slice(start, rows_per_part)
        pq.write_table(part, folder / f"part-{number:03d}.parquet", row_group_size=40)
    return FeatureCache(str(folder))


def written(cache, folder, prompts, **options):
    plan = plan_training_data(cache, len(prompts.names), **options)
    return write_training_data(cache, plan, folder, prompts)


@pytest.fixture(scope="module")
def table(towers):
    """400 rows of random features, every 50th without; opinions are a prompt pair's margins."""
    generator = np.random.default_rng(3)
    features = generator.normal(size=(ROWS, WIDTH)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[::50] = np.nan
    bright, dark = towers.text.encode(["a bright photo", "a dark photo"]).numpy()
    opinion = features @ (bright - dark)
    return pa.table(
        {
            "manifest_file": ["m.parquet"] * ROWS,
            "manifest_row": pa.array(range(ROWS), pa.int64()),
            "status": ["decode_error" if n % 50 == 0 else "ok" for n in range(ROWS)],
            EMBEDDING: feature_column(features),
            "mos": pa.array([None if n % 20 == 1 else v for n, v in enumerate(opinion)]),
            "photo": [f"p{n // 10}" for n in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def cache(table, tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("cache") / "features", table)


@pytest.fixture(scope="module")
def data(cache, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return written(cache, str(folder), prompts, holdout=0.2, watch=["mos"])


def new_learner(towers, seed=0, **options):
    return PromptLearner(towers.text, PAIRS, context_length=4, seed=seed, **options)


def settings(towers, **options):
    given = {"list_size": 32, "steps": 40, "interval": 10, "learning_rate": 5e-3, **options}
    return Settings(logit_scale=towers.logit_scale, **given)


# Workers ------------------------------------------------------------------------------------------

WORKER = """
import sys, torch, torch.distributed as dist
from iqa_core.prompts.learner import PromptLearner
from iqa_core.scoring.margins import pair_margins
from iqa_core.losses.ranking import make_loss
from iqa_core.prompts.pairs import NAMED_PAIRS, PromptPair
from iqa_core.clip.load import load_towers
from iqa_core.training.loop import World, list_loss, sum_gradients

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
tower = load_towers("tiny").text
rows = torch.load(f"{folder}/rows.pt", weights_only=True)
found = {}
for size in (2, 4):
    if rank >= size:
        continue
    dist.init_process_group("gloo", f"file://{folder}/init{size}", rank=rank, world_size=size)
    world = World.current()
    each = len(rows["features"]) // size
    mine = slice(rank * each, (rank + 1) * each)
    for lists in ("global", "local"):
        for loss in ("listmle", "ranknet", "plcc"):
            for target in ("ensemble", "per-pair"):
                learner = PromptLearner(tower, NAMED_PAIRS["pyiqa"][:3], words="a photo of it")
                margins = pair_margins(learner(tower), rows["features"][mine], 7.0)
                part = list_loss(margins, rows[target][mine], make_loss(loss), lists, world)
                part.backward()
                sum_gradients(learner.context, world)
                value = part.detach().clone()
                if lists == "local":
                    dist.all_reduce(value)
                found[f"{size} {lists} {loss} {target}"] = (value, learner.context.grad)
    dist.barrier()
    dist.destroy_process_group()
torch.save(found, f"{folder}/found{rank}.pt")
"""


@pytest.fixture(scope="module")
def one_list(prompts):
    """64 images: features in half precision, and targets of both kinds."""
    features = torch.nn.functional.normalize(
        torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(1)), dim=-1
    ).half()
    margins = torch.from_numpy(scoring_margins(features.numpy(), prompts))
    targets = {"ensemble": image_scores_f64(margins), "per-pair": pair_scores_f64(margins)}
    return {"features": features, **targets}


@pytest.fixture(scope="module")
def found(one_list, tmp_path_factory):
    """What each of four processes found, in groups of two and of four."""
    folder = tmp_path_factory.mktemp("workers")
    torch.save(one_list, folder / "rows.pt")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), str(rank)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(4)
    ]
    for process in processes:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    return [torch.load(folder / f"found{rank}.pt", weights_only=True) for rank in range(4)]


def alone(towers, one_list, lists, loss, target):
    """Return loss and gradient of the mean over lists, in one process and without gathers."""
    learner = PromptLearner(towers.text, PAIRS, words="a photo of it")
    margins = pair_margins(learner(towers.text), one_list["features"], 7.0)
    targets = one_list[target].expand(margins.shape)
    shape = (lists, 64 // lists, len(PAIRS))
    in_lists = (values.reshape(shape).mT.contiguous() for values in (margins, targets))
    each = make_loss(loss)(*in_lists)
    each.mean().backward()
    return each.mean().detach(), learner.context.grad


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ensemble", "per-pair"])
@pytest.mark.parametrize("loss", ["listmle", "ranknet", "plcc"])
@pytest.mark.parametrize("lists", ["global", "local"])
@pytest.mark.parametrize("size", [2, 4])
def test_workers_have_the_gradient_of_one_process(
    towers, one_list, found, size, lists, loss, target
):
    number = 1 if lists == "global" else size
    value, gradient = alone(towers, one_list, number, loss, target)
    assert gradient.abs().max() > 1e-4
    for rank in range(size):
        theirs = found[rank][f"{size} {lists} {loss} {target}"]
        torch.testing.assert_close(theirs[0].to(value), value, rtol=1e-5, atol=0)
        apart = (theirs[1] - gradient).norm() / gradient.norm()
        assert apart < 1e-5


@pytest.mark.parametrize("lists", ["global", "local"])
def test_one_worker_is_no_special_case(towers, one_list, lists):
    learner = PromptLearner(towers.text, PAIRS, words="a photo of it")
    margins = pair_margins(learner(towers.text), one_list["features"], 7.0)
    value = list_loss(margins, one_list["ensemble"], make_loss("listmle"), lists, World())
    value.backward()
    expected, gradient = alone(towers, one_list, 1, "listmle", "ensemble")
    assert torch.equal(value, expected)
    torch.testing.assert_close(learner.context.grad, gradient)


def test_the_order_of_an_epoch():
    first = epoch_order(100, 0, 0, World(0, 2))
    assert sorted(first) == list(range(100))
    assert np.array_equal(first, epoch_order(100, 0, 0, World(0, 2)))
    for other in ((1, 0, World(0, 2)), (0, 1, World(0, 2)), (0, 0, World(1, 2)), (0, 0, World())):
        assert not np.array_equal(first, epoch_order(100, *other))


def test_steps_of_an_epoch(towers):
    assert steps_per_epoch(129, settings(towers), World()) == 4
    assert steps_per_epoch(129, settings(towers), World(1, 2)) == 4
    assert steps_per_epoch(129, settings(towers, lists="local"), World(1, 2)) == 2
    with pytest.raises(InputError, match=r"32 rows of a worker .* more than the 31 training rows"):
        steps_per_epoch(31, settings(towers), World())
    with pytest.raises(
        InputError, match="more than a shard of 31 training rows: lower --list-size"
    ):
        steps_per_epoch(63, settings(towers, lists="local"), World(0, 2))
    with pytest.raises(InputError, match=r"list_size \(32\) must be a multiple of the 5 workers"):
        steps_per_epoch(1000, settings(towers), World(0, 5))


# The loop -----------------------------------------------------------------------------------------


def write_prompts(path, towers, data, chosen, seed=0):
    learner = new_learner(towers, seed)
    state = train(learner, towers.text, data, chosen)
    training = {"settings": dataclasses.asdict(chosen)}
    metrics = {"student": {"srcc": state.best}}
    save_prompts(path, learned_prompts(learner, towers, training=training, metrics=metrics))
    return path.read_bytes()


def test_the_same_seed_gives_the_same_bytes(towers, data, tmp_path):
    first = write_prompts(tmp_path / "a.safetensors", towers, data, settings(towers, seed=1))
    again = write_prompts(tmp_path / "b.safetensors", towers, data, settings(towers, seed=1))
    assert first == again
    other = write_prompts(tmp_path / "c.safetensors", towers, data, settings(towers, seed=2))
    assert other != first
    assert load_prompts(tmp_path / "a.safetensors", towers).training["settings"]["seed"] == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_going_on_from_any_checkpoint_changes_nothing(towers, data, optimizer):
    chosen = settings(towers, optimizer=optimizer, interval=15)  # not a whole number of epochs
    saved = []
    learner = new_learner(towers)
    whole = train(learner, towers.text, data, chosen, on_look=lambda s: saved.append(s.to_bytes()))
    assert [State.from_bytes(one).step for one in saved] == [0, 15, 30, 40]
    for one in saved:
        other = new_learner(towers, seed=9)
        state = train(other, towers.text, data, chosen, state=State.from_bytes(one))
        assert torch.equal(state.context, whole.context)
        assert torch.equal(other.context, learner.context)
        assert (state.best, state.best_step) == (whole.best, whole.best_step)
        curve = [record["loss"] for record in state.history]
        assert curve[1:] == [record["loss"] for record in whole.history][1:]


def test_training_improves_on_its_start_and_keeps_the_best(towers, data):
    learner = new_learner(towers)
    with torch.no_grad():
        learner.context.normal_(generator=torch.Generator().manual_seed(4))  # a poor start
    state = train(learner, towers.text, data, settings(towers, steps=200, learning_rate=0.05))
    first, best = state.history[0], max(state.history, key=lambda record: record["agreement"])
    assert math.isnan(first["loss"])
    assert best["agreement"] > first["agreement"] + 0.02
    assert (state.best, state.best_step) == (best["agreement"], best["step"])
    assert torch.equal(learner.context, state.best_context)
    features, targets = data.held_out()[:2]
    margins = held_out_margins(learner, towers.text, features, towers.logit_scale)
    assert agreement(margins, targets, per_pair=False) == pytest.approx(state.best, abs=1e-9)


def test_a_column_can_be_learned(cache, towers, prompts, tmp_path):
    column = written(cache, str(tmp_path), prompts, target="column:mos", holdout=0.2)
    learner = new_learner(towers)
    chosen = settings(towers, loss="plcc", steps=400, learning_rate=0.02)
    state = train(learner, towers.text, column, chosen)
    assert state.best > 0.9


@pytest.mark.parametrize("loss", ["fidelity", "listnet", "approx-ndcg", "soft-spearman", "upl"])
def test_every_kind_of_loss_trains(towers, cache, prompts, tmp_path, loss):
    pairs = written(cache, str(tmp_path), prompts, target="per-pair")
    state = train(
        new_learner(towers, context="per-side"),
        towers.text,
        pairs,
        settings(towers, loss=loss, steps=10, lists="local"),
    )
    assert state.ended == "steps"
    assert all(math.isfinite(record["agreement"]) for record in state.history)


def test_patience_ends_training(towers, data):
    chosen = settings(towers, steps=1000, interval=1, patience=2, learning_rate=1.0, warmup=0)
    state = train(new_learner(towers), towers.text, data, chosen)
    assert state.ended == "patience"
    assert state.step == state.best_step + 2


def test_divergence_is_noticed(towers, data):
    chosen = settings(towers, learning_rate=1e38, warmup=0, optimizer="sgd")
    learner = new_learner(towers)
    state = train(learner, towers.text, data, chosen)
    assert state.ended == "diverged"
    assert torch.isfinite(learner.context).all()


def test_learning_rate_warms_up_and_falls_as_a_cosine(towers):
    chosen = settings(towers, steps=100, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, chosen) for step in range(101)]
    assert rates[0] == 1 / 10
    assert rates[9:11] == [1.0, 1.0]
    assert rates[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 45 / 90)))
    assert rates[100] == pytest.approx(0.0)
    assert learning_rate(0, settings(towers, warmup=0, learning_rate=2.0)) == 2.0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"loss": "listmler"}, "loss 'listmler' is none of ranknet, margin"),
        ({"loss_options": {"temperature": 1.0}}, "loss listmle has no hyper-parameter"),
        ({"list_size": 1}, r"list_size \(1\) must be at least 2"),
        ({"patience": 0}, r"patience \(0\) must be at least 1"),
    ],
)
def test_unusable_settings(towers, options, text):
    with pytest.raises(InputError, match=text):
        settings(towers, **options)


# The data -----------------------------------------------------------------------------------------


def test_rows_are_those_of_the_cache(data, table, prompts):
    assert (data.unused, data.rows + data.held_out_rows) == (8, 392)
    assert 40 < data.held_out_rows < 120
    features = features_of(table)
    place = {row.astype(np.float16).tobytes(): n for n, row in enumerate(features)}
    scores = image_scores_f64(torch.from_numpy(scoring_margins(features, prompts))).numpy()[:, 0]
    mos = table.column("mos").to_numpy()
    seen = []
    for stored, targets in (data.shard(0, 1)[:2], data.held_out()[:2]):
        numbers = [place[row.tobytes()] for row in stored]
        np.testing.assert_allclose(targets[:, 0], scores[numbers], rtol=0, atol=1e-12)
        seen += numbers
    assert sorted(seen) == [n for n in range(ROWS) if n % 50]
    teacher, watched = data.held_out_references()
    np.testing.assert_array_equal(teacher, data.held_out()[1][:, 0])
    np.testing.assert_array_equal(watched[:, 0], mos[numbers])


def test_shards_are_the_rows_once(data):
    whole = data.shard(0, 1).features
    parts = [data.shard(rank, 3) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate([part.features for part in parts]), whole)
    assert {len(part.targets) for part in parts} <= {data.rows // 3, data.rows // 3 + 1}
    assert isinstance(whole, np.memmap)
    assert whole.dtype == np.float16


def test_the_order_of_the_part_files_changes_nothing(table, data, prompts, tmp_path):
    turned = table.take(list(range(ROWS - 1, -1, -1)))
    other = written(
        write_cache(tmp_path / "f", turned, 77), str(tmp_path / "d"), prompts, holdout=0.2
    )
    for here, there in ((data.shard(0, 1), other.shard(0, 1)), (data.held_out(), other.held_out())):
        np.testing.assert_array_equal(here[0], there[0])
        np.testing.assert_allclose(here[1], there[1], rtol=1e-7)  # products of other shapes
    assert dataclasses.replace(other, folder="", watched=("mos",)) == dataclasses.replace(
        data, folder=""
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_a_row_of_status_ok_without_finite_features_is_refused(value, table, prompts, tmp_path):
    """As where the cache's files were written again by another program."""
    features = features_of(table).astype(np.float16)
    missing = np.isnan(features).all(axis=1)
    if value is None:
        missing[33] = True
    else:
        features[33, 5] = value
    flat = pa.array(features.ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, WIDTH, mask=pa.array(missing))
    place = table.schema.get_field_index(EMBEDDING)
    cache = write_cache(tmp_path / "features", table.set_column(place, EMBEDDING, column))
    with pytest.raises(InputError, match=r"row 33 of m\.parquet has the status ok, but no finite"):
        written(cache, str(tmp_path / "data"), prompts, holdout=0.2)


def test_rows_that_share_a_value_are_on_one_side(cache, table, prompts, tmp_path):
    split = written(
        cache, str(tmp_path), prompts, holdout=0.3, holdout_by="photo", target="per-pair"
    )
    assert split.held_out()[1].shape == (split.held_out_rows, len(PAIRS))
    photo = dict(
        zip(
            (row.astype(np.float16).tobytes() for row in features_of(table)),
            table.column("photo").to_pylist(),
            strict=True,
        )
    )
    trained = {photo[row.tobytes()] for row in split.shard(0, 1)[0]}
    held_out = {photo[row.tobytes()] for row in split.held_out()[0]}
    assert trained
    assert held_out
    assert not trained & held_out


def test_rows_without_the_column_are_left_out(cache, prompts, tmp_path):
    column = written(cache, str(tmp_path), prompts, target="column:mos")
    assert column.unused == 8 + 20
    assert np.isfinite(column.shard(0, 1)[1]).all()


def test_data_elsewhere_is_copied_to_the_worker(cache, data, prompts):
    folder = "memory://training"
    try:
        written(cache, folder, prompts, holdout=0.2, watch=["mos"])
        elsewhere = TrainingData.open(folder)
        for rank in range(2):
            for here, there in zip(data.shard(rank, 2), elsewhere.shard(rank, 2), strict=True):
                np.testing.assert_array_equal(here, there)
        assert dataclasses.replace(elsewhere, folder="") == dataclasses.replace(data, folder="")
    finally:
        fsspec.filesystem("memory").rm("/training", recursive=True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": "best"}, "--teacher 'best' is none of ensemble, per-pair, column:NAME"),
        ({"target": "column:dmos"}, "'dmos' is not in the features, whose columns are: mos, photo"),
        ({"watch": ["photo"]}, "--watch column 'photo' is of type string, but must be numeric"),
        ({"holdout_by": "group"}, "--holdout-by column 'group' is not in the features"),
        ({"holdout": 0.001}, r"--holdout 0.001 leaves \d+ of 392 rows to measure agreement on"),
    ],
)
def test_unusable_data(cache, prompts, tmp_path, options, text):
    with pytest.raises(InputError, match=text):
        written(cache, str(tmp_path / "data"), prompts, **options)
    assert not (tmp_path / "data").exists()


def test_data_is_complete_once_its_document_is_there(data):
    assert TrainingData.open(data.folder) == data
    assert (Path(data.folder) / DATA).stat().st_mtime >= max(
        path.stat().st_mtime for path in Path(data.folder).glob("*.features")
    )


# Degraded views -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def viewed(photos, tmp_path_factory):
    """A cache of 150 crops with three degraded copies each, through the real tower."""
    scorer = Scorer("tiny")
    generator = np.random.default_rng(0)
    images, levels = [], []
    for row in range(150):
        photo = list(photos.values())[row % len(photos)]
        top, left = (int(generator.integers(edge - 223)) for edge in photo.shape[:2])
        crop = np.ascontiguousarray(photo[top : top + 224, left : left + 224])
        copies, stated = degraded_views(crop, 3, f"m.parquet:{row}")
        images += [crop, *copies]
        levels.append(stated)
    features = scorer.score(images).features.reshape(150, 4, WIDTH)
    table = pa.table(
        {
            "manifest_file": ["m.parquet"] * 150,
            "manifest_row": pa.array(range(150), pa.int64()),
            "status": ["ok"] * 150,
            EMBEDDING: feature_column(features[:, 0]),
            VIEWS: feature_column(features[:, 1:].reshape(150, -1)),
            VIEW_LEVELS: pa.array(levels, pa.list_(pa.int8(), 3)),
        }
    )
    return write_cache(tmp_path_factory.mktemp("viewed") / "features", table)


def right_share(learner, towers, cache):
    """How far the learner's scores of the held-in views agree with their known order."""
    table = pa.concat_tables(cache.tables())
    views, levels = views_of(table)
    margins = held_out_margins(learner, towers.text, views.reshape(-1, WIDTH), towers.logit_scale)
    return float(known_order_agreement(image_scores_f64(margins), torch.from_numpy(levels.ravel())))


def test_a_wrong_teacher_is_not_followed_where_the_order_is_known(viewed, towers, tmp_path):
    pairs = [PromptPair("turned", "Bad photo.", "Good photo.")]
    prompts = encode_prompts(towers, pairs)
    data = written(viewed, str(tmp_path / "d"), prompts, holdout=0.2)
    assert (data.views, data.trust) == (3, (0.0,))
    learner = PromptLearner(towers.text, pairs, context_length=4, seed=0)
    train(learner, towers.text, data, settings(towers, steps=80, learning_rate=0.02))
    assert right_share(learner, towers, viewed) > 0.5
    # Without the known order, the student is as wrong as its teacher.
    alone = PromptLearner(towers.text, pairs, context_length=4, seed=0)
    plain = dataclasses.replace(data, trust=(1.0,))
    chosen = settings(towers, steps=80, learning_rate=0.02, order_weight=0.0)
    train(alone, towers.text, plain, chosen)
    assert right_share(alone, towers, viewed) < 0


def test_trust_is_measured_for_each_pair(viewed, towers, tmp_path):
    pairs = [
        PromptPair("good", "Good photo.", "Bad photo."),
        PromptPair("turned", "Bad photo.", "Good photo."),
    ]
    prompts = encode_prompts(towers, pairs)
    each = written(viewed, str(tmp_path / "e"), prompts, holdout=0.2, target="per-pair")
    assert each.trust[0] > 0.25
    assert each.trust[1] == 0.0
    # In the ensemble, only the pair that is right counts.
    both = written(viewed, str(tmp_path / "b"), prompts, holdout=0.2)
    assert both.trust == (each.trust[0],) * 2
    features, targets = both.held_out()[:2]
    margins = torch.from_numpy(scoring_margins(np.array(features), prompts)).double()
    np.testing.assert_allclose(targets[:, 0], margins.sigmoid()[:, 0].numpy(), atol=1e-6)
