"""Tests of jobs/ray_errors.py on what Ray really raises."""

from __future__ import annotations

import os
import pickle
import re
import sys

import pytest
import ray

from iqa_core.errors import InputError
from iqa_core.tables.manifest_reading import DamagedManifestError
from jobs.ray_errors import NodeError, as_input_error, node_error, user_error
from jobs.scoring.dataset import set_up_ray_data


def give_up(_):
    raise InputError("--manifest m.parquet is damaged: restore it")


def find_damage(_):
    raise DamagedManifestError("m.parquet, row group 3: restore it", "m.parquet")


def blame_the_node(_):
    raise NodeError("node 10.0.0.7 has no driver", "abc")


def fail(_):
    raise ZeroDivisionError("of a kind that nobody foresaw\nwith a second line")


def die(_):
    os._exit(1)


@pytest.fixture
def raised(ray_cluster):
    """Give what comes back when a function fails in a task of Ray Data's."""
    set_up_ray_data()
    context = ray.data.DataContext.get_current()
    before = context.raise_original_map_exception
    context.raise_original_map_exception = True
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def raised(function):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
            list(ray.data.range(2).map_batches(function).iter_batches())
        return caught.value

    yield raised
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    context.raise_original_map_exception = before


@pytest.mark.ray
def test_input_errors_come_back_as_they_were(raised):
    error = raised(give_up)
    assert str(user_error(error)) == "manifest m.parquet is damaged: restore it"
    line = as_input_error(error).on_command_line()
    assert line == "--manifest m.parquet is damaged: restore it"
    assert node_error(error) is None


@pytest.mark.ray
def test_damage_comes_back_with_its_file(raised):
    found = as_input_error(raised(find_damage))
    assert isinstance(found, DamagedManifestError)
    assert (str(found), found.file) == ("m.parquet, row group 3: restore it", "m.parquet")


def test_input_errors_are_found_below_all_wrappers():
    said = InputError("a.parquet: give another one\nFailed to apply UDF\nTo change retry attempts")
    wrapper = ray.exceptions.UserCodeException("UDF failed to process a data block.")
    wrapper.__cause__ = said
    error = ray.exceptions.RayTaskError(
        "task", "Traceback:\nboom", wrapper, proctitle="ray", pid=1, ip="127.0.0.1"
    )
    assert str(user_error(error.as_instanceof_cause())) == "a.parquet: give another one"
    assert user_error(error) is said


@pytest.mark.ray
def test_a_node_that_is_to_blame_is_named(raised):
    found = node_error(raised(blame_the_node))
    assert (str(found), found.node) == ("node 10.0.0.7 has no driver", "abc")


@pytest.mark.ray
def test_nothing_is_promised_where_the_same_would_happen_again(raised):
    line = str(as_input_error(raised(fail)))
    assert "ZeroDivisionError: of a kind that nobody foresaw" in line
    assert "the same command may fail again" in line
    assert "resumes" not in line
    assert "\n" not in line
    log = re.search(r"see (worker-\*-\d+\.err) in Ray's session logs on node (\S+) ", line)
    assert log, line
    assert f"`ray logs cluster '{log[1]}' --node-ip {log[2]}`" in line


@pytest.mark.ray
def test_losses_may_be_made_good(ray_cluster):
    task = ray_cluster.remote(max_retries=0)(die)
    with pytest.raises(ray.exceptions.WorkerCrashedError) as caught:
        ray.get(task.remote(0))
    line = str(as_input_error(caught.value))
    assert re.match(r"Ray lost part of the work for good \(WorkerCrashedError: .*\)", line)
    assert "the same command resumes" in line
    # As Ray Data raises it.
    caught.value.__cause__ = ray.data.exceptions.SystemException()
    wrapped = RuntimeError()
    wrapped.__cause__ = caught.value
    assert str(as_input_error(wrapped)) == line


def test_input_errors_of_the_driver_stay():
    error = InputError("--output o can't be written")
    assert as_input_error(error) is error
    assert user_error(ValueError("another")) is None


def test_node_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(NodeError("no driver", "abc")))  # noqa: S301 - our own
    assert (str(error), error.node) == ("no driver", "abc")
