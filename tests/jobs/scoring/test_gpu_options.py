"""Tests of jobs/scoring/gpu_options.py: what --compile and --decode gpu exclude."""

from __future__ import annotations

import pytest

from iqa_core.errors import InputError
from jobs.score import Config
from jobs.scoring.gpu_options import check_gpu_options
from jobs.scoring.pool import ActorPool

GPUS = ActorPool(most=1, cpus=1.0, gpus=1.0)
CPUS = ActorPool(most=2, cpus=1.0, gpus=0.0)


def options(**given):
    return Config(manifest="m", output="o", **given)


def test_on_gpus_both_are_taken():
    check_gpu_options(options(compile=True, decode="gpu", hash=True), GPUS)
    check_gpu_options(options(), CPUS, crops=5, views=2)


@pytest.mark.parametrize("given", [{"compile": True}, {"decode": "gpu"}])
def test_on_cpus_and_for_images_of_any_size_neither_is(given):
    with pytest.raises(InputError, match="is for GPUs, and this run scores on CPUs: leave it out"):
        check_gpu_options(options(**given), CPUS)
    with pytest.raises(InputError, match="needs images of one size, and with resolution native"):
        check_gpu_options(options(**given, resolution="native"), GPUS)


@pytest.mark.parametrize(
    ("given", "counts", "names"),
    [
        ({"dedupe": True, "descriptors": True}, {}, "dedupe, descriptors"),
        ({}, {"crops": 5}, "crops"),
        ({}, {"views": 2}, "views"),
    ],
)
def test_what_needs_pixels_on_the_cpu_does_not_go_with_decoding_on_gpus(given, counts, names):
    with pytest.raises(InputError, match=f"decode gpu does not go with {names}, which need"):
        check_gpu_options(options(decode="gpu", **given), GPUS, **counts)
    check_gpu_options(options(**given), GPUS, **counts)
