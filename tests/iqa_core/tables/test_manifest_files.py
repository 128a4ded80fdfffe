"""Tests of iqa_core/tables/manifest_files.py: which files are a manifest's."""

from __future__ import annotations

import os

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.tables.manifest import open_manifest


@pytest.fixture
def write(tmp_path):
    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"uri": [name]}), tmp_path / name)

    return write


def names(uri):
    return [file.name for file in open_manifest(str(uri)).files]


class TestNames:
    @pytest.mark.parametrize(
        "name", ["part-0000", "train.parq", "x.pq", "_hidden.PARQUET", "a.csv"]
    )
    def test_a_file_that_is_named_may_have_any_name(self, name, write, tmp_path):
        write(f"m/{name}", "m/other.parquet")
        assert names(tmp_path / "m" / name) == [name]

    @pytest.mark.slow
    def test_so_may_a_remote_one(self, write, tmp_path):
        write("part-0000")
        memory = fsspec.filesystem("memory")
        memory.pipe_file("/named/part-0000", (tmp_path / "part-0000").read_bytes())
        memory.pipe_file("/named/part-0001", b"not read")
        assert names("memory://named/part-0000") == ["part-0000"]
        with pytest.raises(InputError, match=r"memory:.*named/part-0001 is not a readable Parquet"):
            open_manifest("memory://named/part-0001")

    def test_a_folders_other_files_stay_out(self, write, tmp_path):
        write("m/a.parquet", "m/b.pq", "m/part-0000", "m/_c.parquet", "m/.d.parquet")
        assert names(tmp_path / "m") == ["a.parquet"]
        assert names(tmp_path / "m/*") == ["a.parquet"]
        (tmp_path / "m/a.parquet").unlink()
        with pytest.raises(InputError, match=r"holds no \*\.parquet file.* such as .*m/b\.pq, is"):
            open_manifest(str(tmp_path / "m"))

    def test_a_glob_names_files(self, write, tmp_path):
        write("m/part-0", "m/part-1.parquet", "m/x.parquet", "m/deep/part-2", "m/_part-3")
        assert names(tmp_path / "m/part-*") == ["part-0", "part-1.parquet"]
        assert names(tmp_path / "m/**/part-*") == ["deep/part-2", "part-0", "part-1.parquet"]
        memory = fsspec.filesystem("memory")
        for name in ("part-0", "part-1.parquet"):
            memory.pipe_file(f"/globbed/{name}", (tmp_path / "m" / name).read_bytes())
        assert names("memory://globbed/part-?") == ["part-0"]
        assert names("memory://globbed/*") == ["part-1.parquet"]

    def test_a_glob_names_folders(self, write, tmp_path):
        write(
            "m/2024-01/a.parquet",
            "m/2024-01/b.pq",
            "m/2024-02/deep/a.parquet",
            "m/2023-12/a.parquet",
        )
        expected = ["2024-01/a.parquet", "2024-02/deep/a.parquet"]
        assert names(tmp_path / "m/2024-*") == expected
        memory = fsspec.filesystem("memory")
        for path in (tmp_path / "m").rglob("*.p*"):
            memory.pipe_file(f"/months/{path.relative_to(tmp_path)}", path.read_bytes())
        assert names("memory://months/m/2024-*") == expected

    def test_nothing_there(self, write, tmp_path):
        write("m/a.parquet")
        for name in ("x", "m/x-*", "m/*/y"):
            with pytest.raises(InputError, match="does not exist: check the path"):
                open_manifest(str(tmp_path / name))


class TestLinks:
    def test_linked_folders_are_read(self, write, tmp_path):
        write("m/a.parquet", "disk/b.parquet", "disk/deep/c.parquet", "disk3/d.parquet")
        (tmp_path / "m/2023").symlink_to(tmp_path / "disk")
        (tmp_path / "disk/deep/on").symlink_to("../../disk3")
        manifest = open_manifest(str(tmp_path / "m"))
        found = ["2023/b.parquet", "2023/deep/c.parquet", "2023/deep/on/d.parquet", "a.parquet"]
        assert [file.name for file in manifest.files] == found
        assert manifest.notes == ()
        assert names(tmp_path / "m/*/*.parquet") == ["2023/b.parquet"]
        assert names(tmp_path / "m/**/d.parquet") == ["2023/deep/on/d.parquet"]
        assert names(tmp_path / "m/20*") == found[:3]
        (tmp_path / "link").symlink_to("m")
        assert names(tmp_path / "link") == found

    def test_loops_are_noticed(self, write, tmp_path):
        write("m/a/x.parquet", "m/b/y.parquet", "z.parquet")
        (tmp_path / "m/a/self").symlink_to(tmp_path / "m/a")
        (tmp_path / "m/b/root").symlink_to("..")
        (tmp_path / "m/up").symlink_to(tmp_path)
        (tmp_path / "m/x").symlink_to("x")
        manifest = open_manifest(str(tmp_path / "m"))
        assert [file.name for file in manifest.files] == ["a/x.parquet", "b/y.parquet"]
        base = tmp_path / "m"
        assert sorted(manifest.notes) == [
            f"{base}/a/self is not followed: it is {base}/a, which is read already",
            f"{base}/b/root is not followed: it is {base}, which is read already",
            f"{base}/up is not followed: it links to a folder that holds {base}",
            f"{base}/x is left out: it links to x, which is gone",
        ]

    def test_a_folder_with_two_names_is_read_once_by_its_own(self, write, tmp_path):
        write("m/v2/a.parquet", "far/b.parquet", "far/deep/c.parquet")
        (tmp_path / "m/latest").symlink_to("v2")
        (tmp_path / "m/far1").symlink_to(tmp_path / "far/deep")
        (tmp_path / "m/far2").symlink_to(tmp_path / "far")
        manifest = open_manifest(str(tmp_path / "m"))
        assert [file.name for file in manifest.files] == [
            "far1/c.parquet",
            "far2/b.parquet",
            "v2/a.parquet",
        ]
        base = tmp_path / "m"
        assert sorted(manifest.notes) == [
            f"{base}/far2/deep is not followed: it is {base}/far1, which is read already",
            f"{base}/latest is not followed: it is {base}/v2, which is read already",
        ]
        assert names(tmp_path / "m/latest") == ["a.parquet"]

    def test_links_to_what_is_gone(self, write, tmp_path):
        write("m/a.parquet")
        (tmp_path / "m/2022").symlink_to(tmp_path / "unmounted")
        manifest = open_manifest(str(tmp_path / "m"))
        (note,) = manifest.notes
        assert (
            note
            == f"{tmp_path}/m/2022 is left out: it links to {tmp_path}/unmounted, which is gone"
        )
        (tmp_path / "m/a.parquet").unlink()
        with pytest.raises(InputError, match=r"holds no .*m/2022 is left out"):
            open_manifest(str(tmp_path / "m"))
        (tmp_path / "m/b.parquet").symlink_to("nowhere")
        with pytest.raises(InputError, match=r"m/b\.parquet is not a readable Parquet file"):
            open_manifest(str(tmp_path / "m"))

    def test_linked_files_keep_the_links_names(self, write, tmp_path):
        write("blobs/0a1b")
        (tmp_path / "m").mkdir()
        (tmp_path / "m/train.parquet").symlink_to("../blobs/0a1b")
        assert names(tmp_path / "m") == ["train.parquet"]

    def test_folders_that_cannot_be_listed_are_named(self, write, tmp_path):
        write("m/a.parquet", "m/lost+found/b.parquet")
        (tmp_path / "m/lost+found").chmod(0)
        try:
            if os.access(tmp_path / "m/lost+found", os.R_OK):
                pytest.skip("may read everything")
            (note,) = open_manifest(str(tmp_path / "m")).notes
        finally:
            (tmp_path / "m/lost+found").chmod(0o755)
        assert (
            note == f"{tmp_path}/m/lost+found is left out: it can't be listed (Permission denied)"
        )
