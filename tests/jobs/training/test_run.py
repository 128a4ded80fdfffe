"""Tests of jobs/training/run.py that start no Ray: steps, hyper-parameters, workers that can't fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray

from iqa_core.errors import InputError
from jobs.training.config import Config, check_options
from jobs.training.run import _scaling, settings_of
from jobs.training.workers import _backend


def config(**options):
    return Config(features="F", output="p.safetensors", list_size=10, **options)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 1000),
        ({"steps": 7}, 7),
        ({"epochs": 3.0}, 3 * 12),
        ({"epochs": 3.0, "num_workers": 2}, 3 * 12),
        ({"epochs": 0.01}, 1),
        ({"epochs": 3.0, "steps": 7}, 7),
        ({"epochs": 0.5, "steps": 7}, 6),
    ],
)
def test_steps_and_epochs_are_both_limits(options, steps):
    assert settings_of(config(**options), 1.0, rows=125).steps == steps


def test_the_recipe_of_the_seed_is_the_fixed_prompts_order_alone():
    chosen = settings_of(config(recipe="seed", order_weight=2.0), 1.0, 125)
    assert (chosen.order_weight, chosen.meaning) == (0.0, 0.0)
    assert settings_of(config(), 1.0, 125, 0.5).learning_rate == 0.5
    assert settings_of(config(learning_rate=0.1), 1.0, 125, 0.5).learning_rate == 0.1


def test_hyper_parameters_are_numbers_by_name():
    chosen = config(loss="approx-ndcg", loss_options=("temperature=0.2", "grades=3"))
    assert settings_of(chosen, 1.0, 125).loss_options == {"temperature": 0.2, "grades": 3.0}
    with pytest.raises(InputError) as raised:
        settings_of(config(loss_options=("grades",)), 1.0, 125)
    assert raised.value.on_command_line() == (
        "--loss-options grades must be NAME=NUMBER: write it as in temperature=0.2"
    )


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    return SimpleNamespace(resources={"CPU": 3.0, "GPU": 1.0}, possible_gpus=None)


def test_a_machine_with_a_gpu_gives_each_worker_one(machine):
    scaling = _scaling(config(), machine)
    assert scaling.use_gpu
    assert scaling.resources_per_worker == {"CPU": 1.0, "GPU": 1.0}
    assert not _scaling(config(gpus_per_worker=0.0), machine).use_gpu


def test_workers_that_share_a_gpu_do_not_use_nccl(machine):
    """Which refuses two ranks on one device."""
    assert _backend(_scaling(config(), machine)) == "nccl"
    assert _backend(_scaling(config(num_workers=2, gpus_per_worker=0.5), machine)) == "gloo"
    assert _backend(_scaling(config(gpus_per_worker=0.0), machine)) == "gloo"


def test_workers_may_be_fewer_while_nodes_are_away(machine):
    scaling = _scaling(config(num_workers=6, min_workers=2, gpus_per_worker=0.0), machine)
    assert scaling.num_workers == (2, 6)
    two = config(num_workers=2, min_workers=2, gpus_per_worker=0.0)
    assert _scaling(two, machine).num_workers == 2


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"num_workers": 4, "gpus_per_worker": 0.0},
            "--num-workers 4 must be at most 3 here, with 1 CPU each of this machine's 3: use fewer, or "
            "a cluster with --address",
        ),
        ({"num_workers": 3, "gpus_per_worker": 0.5}, "at most 2 here, with 0.5 GPU each of this"),
        (
            {"num_workers": 6, "min_workers": 4, "gpus_per_worker": 0.0},
            "--min-workers 4 must be at most 3 here",
        ),
        (
            {"num_workers": 2, "min_workers": 3},
            "--min-workers 3 must be at most --num-workers, which is 2: lower it, or leave it out",
        ),
    ],
)
def test_workers_that_never_fit_are_refused(machine, options, line):
    with pytest.raises(InputError) as raised:
        _scaling(config(**options), machine)
    assert line in raised.value.on_command_line()


@pytest.mark.parametrize(
    ("options", "copies", "text"),
    [
        ({"pair_weights": True}, False, "used with degraded copies"),
        ({"recipe": "weights"}, False, "--recipe weights must be used with degraded copies"),
        ({"lower_is_better": True}, True, "used with --teacher column:NAME"),
    ],
)
def test_options_without_effect_are_refused(options, copies, text):
    with pytest.raises(InputError) as raised:
        check_options(config(**options), has_copies=copies)
    assert text in raised.value.on_command_line()
    check_options(config(), has_copies=False)
    check_options(config(recipe="weights"), has_copies=True)
    check_options(config(teacher="column:dmos", lower_is_better=True), has_copies=False)
