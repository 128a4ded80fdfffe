"""Tests of iqa_core/tables/plan.py; with an output around it in test_output.py."""

from __future__ import annotations

import copy

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.plan import (
    DAMAGED,
    check_plan,
    manifest_folder,
    read_damaged,
    with_damaged,
)


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "m").mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table({"uri": ["x", "y"]}), tmp_path / f"m/{name}.parquet")
    return open_manifest(str(tmp_path / "m"))


def test_an_unchanged_manifest_and_a_new_file_pass(manifest):
    plan = manifest.plan()
    check_plan("o", plan, manifest)
    check_plan("o", {"files": plan["files"][:1]}, manifest)


@pytest.mark.parametrize(("key", "value"), [("rows", 3), ("size", 1), ("digest", "other")])
def test_what_changed_is_named(key, value, manifest):
    plan = copy.deepcopy(manifest.plan())
    now = plan["files"][1][key]
    plan["files"][1][key] = value
    text = rf"manifest file b\.parquet of .*/m: {key} changed from {value} to {now} since output o"
    with pytest.raises(InputError, match=text):
        check_plan("o", plan, manifest)


def test_a_file_that_is_gone_is_named(manifest):
    plan = manifest.plan()
    plan["files"].append(plan["files"][0] | {"name": "c.parquet"})
    with pytest.raises(InputError, match=r"manifest file c\.parquet is gone from .*/m"):
        check_plan("o", plan, manifest)


def test_plans_of_versions_without_digests_pass(manifest):
    files = [{k: v for k, v in file.items() if k != "digest"} for file in manifest.plan()["files"]]
    check_plan("o", {"files": files}, manifest)


def test_damaged_files_are_remembered_with_their_footers(manifest, tmp_path):
    folder = Folder.of(str(tmp_path / "o"))
    assert read_damaged(folder) == {}
    damaged = with_damaged({}, manifest, ["b.parquet"])
    folder.write_json(DAMAGED, damaged)
    assert read_damaged(folder) == damaged
    assert list(damaged) == ["b.parquet"]
    assert damaged["b.parquet"]["digest"] == manifest.plan()["files"][1]["digest"]
    assert len(damaged["b.parquet"]["footer"]) == 32
    assert with_damaged(damaged, manifest, ["b.parquet"]) == damaged


def test_a_restored_file_may_have_another_digest_but_no_other_footer(manifest):
    plan = copy.deepcopy(manifest.plan())
    plan["files"][1]["digest"] = "of the damaged file"
    footer = with_damaged({}, manifest, ["b.parquet"])["b.parquet"]["footer"]
    noted = {"b.parquet": {"digest": "of the damaged file", "footer": footer}}
    check_plan("o", plan, manifest, noted)
    noted["b.parquet"]["footer"] = "another"
    with pytest.raises(InputError, match="digest changed"):
        check_plan("o", plan, manifest, noted)


@pytest.mark.parametrize(
    ("manifest", "names", "folder"),
    [
        ("/data/m.parquet", ["m.parquet"], "/data"),
        ("/data/lists", ["a.parquet", "b/c.parquet"], "/data/lists"),
        ("/data/lists", ["lists.parquet"], "/data/lists"),
        ("/data/*/part-?.parquet", ["a/part-0.parquet"], "/data"),
        ("file:///data/m.parquet", ["m.parquet"], "/data"),
        ("s3://box/m.parquet", ["m.parquet"], "s3://box"),
        (None, [], None),
    ],
)
def test_the_folder_of_a_manifest(manifest, names, folder):
    assert manifest_folder({"manifest": manifest, "files": [{"name": n} for n in names]}) == folder


def test_a_plan_records_the_folder(tmp_path):
    folder = tmp_path / "shoot [2024]"
    folder.mkdir()
    pq.write_table(pa.table({"uri": ["x"]}), folder / "a.parquet")
    plan = open_manifest(str(folder)).plan()
    assert manifest_folder(plan) == str(folder)
