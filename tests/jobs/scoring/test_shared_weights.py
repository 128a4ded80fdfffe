"""Tests of jobs/scoring/shared_weights.py: what is unpickled, and where its tensors are."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from iqa_core.clip.load import load_towers
from jobs.scoring.shared_weights import SharedWeights, with_shared_weights


def through_pickle(value):
    buffers = []
    pickled = pickle.dumps(SharedWeights(value), protocol=5, buffer_callback=buffers.append)
    # Read-only, as those of Ray's object store are.
    again = pickle.loads(pickled, buffers=[bytes(each) for each in buffers])  # noqa: S301 - our own
    return again, len(pickled)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).view(2, 3),
        torch.arange(6.0).view(2, 3).t(),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.arange(6.0).bfloat16(),
        torch.tensor(3),
        torch.tensor([True, False]),
        torch.arange(10.0)[2:5],
        torch.empty(0, 3),
        torch.zeros(1).expand(4),
        torch.arange(4.0).as_strided((4,), (0,), 2),
        torch.ones(3, requires_grad=True),
        torch.nn.Parameter(torch.ones(3)),
        torch.eye(3).to_sparse(),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)} {tensor.dtype}",
)
def test_a_tensor_is_the_same(tensor):
    again, _ = through_pickle(tensor)
    assert type(again) is type(tensor)
    assert again.dtype == tensor.dtype
    assert again.requires_grad == tensor.requires_grad
    assert torch.equal(again.to_dense(), tensor.to_dense())
    if not tensor.is_sparse:
        assert again.stride() == tensor.stride()


def test_weights_are_beside_the_pickle():
    tensor = torch.ones(1000, 1000)
    again, size = through_pickle({"one": tensor, "same": tensor})
    assert size < 10_000
    assert again["one"] is again["same"]


def test_what_has_no_tensors_is_the_same_too():
    assert through_pickle([1, "two", None])[0] == [1, "two", None]
    assert np.array_equal(through_pickle(np.arange(5))[0], np.arange(5))


@pytest.mark.ray
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("resolution", ["model", "native"])
def test_a_worker_computes_from_the_weights_in_the_store(ray_cluster, precision, resolution):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    @ray.remote(num_cpus=1)
    def encode(tower, pixels):
        place = max(tower.parameters(), key=lambda each: each.nbytes).data_ptr()
        features = tower.to_device("cpu", precision).encode(pixels)
        return is_shared(place), features.numpy()

    tower = load_towers("tiny", resolution).image
    pixels = np.random.default_rng(0).integers(0, 256, (3, *tower.preprocess.size, 3), np.uint8)
    shared, features = ray.get(encode.remote(ray.put(with_shared_weights(tower)), pixels))
    copied, as_before = ray.get(encode.remote(ray.put(tower), pixels))
    assert (shared, copied) == (True, False)
    assert np.array_equal(features, as_before)


def test_a_tower_of_another_package_has_its_own_weights():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

    tower = Counting()
    assert with_shared_weights(tower) is tower


def is_shared(address):
    """Return whether an address is in a file that processes share."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end, flags = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
        if int(begin, 16) <= address < int(end, 16):
            return flags.endswith("s")
    raise AssertionError("no such address")
