"""Tests of jobs/local_paths.py: a path of one machine on a cluster of several."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from iqa_core.errors import InputError
from jobs.local_paths import refuse_local_paths

SEVERAL = SimpleNamespace(has_several_nodes=True)
ONE = SimpleNamespace(has_several_nodes=False)


@pytest.mark.parametrize("path", ["/data/m.parquet", "m.parquet", "file:///data", "local:///data"])
def test_a_local_path_is_refused_on_several_nodes(path):
    with pytest.raises(InputError) as caught:
        refuse_local_paths([("--output", "s3://b/o"), ("--manifest", path)], SEVERAL, shared=False)
    line = caught.value.on_command_line()
    assert line.startswith(f"--manifest {path}: on this machine")
    assert line.endswith("or say --shared-filesystem if they see the same files")
    refuse_local_paths([("--manifest", path)], SEVERAL, shared=True)
    refuse_local_paths([("--manifest", path)], ONE, shared=False)


def test_all_of_them_are_named():
    with pytest.raises(InputError, match=r"^manifest m and output o: on this machine"):
        refuse_local_paths([("--manifest", "m"), ("--output", "o")], SEVERAL, shared=False)


def test_other_paths_are_not_refused():
    paths = [("--manifest", "s3://b/m"), ("--output", ""), ("--allow-prefix", "https://host/")]
    refuse_local_paths(paths, SEVERAL, shared=False)
