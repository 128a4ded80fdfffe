"""Tests of jobs/ray_errors.py on errors as Ray makes them."""

from __future__ import annotations

import pickle

import pytest
import ray
from ray.exceptions import RayTaskError, UserCodeException, WorkerCrashedError

from iqa_core.manifest_reading import DamagedManifestError
from iqa_core.schema import InputError
from jobs.ray_errors import user_error


def task_error(cause):
    return RayTaskError("task", "Traceback:\nboom", cause, proctitle="ray", pid=1, ip="127.0.0.1")


def test_what_the_task_said_is_found_below_all_wrappers():
    said = InputError("a.parquet: give another one\nFailed to apply UDF\nTo change retry attempts")
    wrapper = UserCodeException("UDF failed to process a data block.")
    wrapper.__cause__ = said
    error = task_error(wrapper).as_instanceof_cause()
    assert str(user_error(error)) == "a.parquet: give another one"
    assert user_error(task_error(wrapper)) is said


def test_ray_s_own_class_of_the_same_kind_is_not_it():
    said = DamagedManifestError("a.parquet: damaged", "a.parquet")
    error = task_error(said).as_instanceof_cause()
    assert isinstance(error, InputError)
    assert user_error(error) is said
    found = pickle.loads(pickle.dumps(said))  # noqa: S301 - our own
    assert (str(found), found.file) == ("a.parquet: damaged", "a.parquet")


def test_other_errors_have_none():
    chained = task_error(ValueError("a bug"))
    chained.__context__ = chained
    assert user_error(chained) is None
    assert user_error(WorkerCrashedError()) is None


@pytest.mark.ray
def test_of_a_task_that_really_ran(ray_cluster):
    def fail(table):
        yield table
        raise DamagedManifestError("m.parquet, row group 3: restore it", "m.parquet")

    dataset = ray.data.range(10).map_batches(fail, batch_size=None)
    with pytest.raises(ray.exceptions.RayError) as raised:
        dataset.materialize()
    found = user_error(raised.value)
    assert isinstance(found, DamagedManifestError)
    assert (str(found), found.file) == ("m.parquet, row group 3: restore it", "m.parquet")
