"""Tests of iqa_core/storage/folder.py on a real disk."""

from __future__ import annotations

import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder, has_scheme


def test_has_scheme():
    assert has_scheme("s3://bucket/key")
    assert has_scheme("zip://a.jpg::file.zip")
    assert not has_scheme("/data/a.jpg")
    assert not has_scheme("C:/a.jpg")


class TestFolder:
    def test_writes_make_folders_and_leave_no_other_file(self, tmp_path):
        folder = Folder.of(str(tmp_path / "new"))
        folder.write("_run/a.bin", b"123")
        assert folder.read("_run/a.bin") == b"123"
        assert [path.name for path in (tmp_path / "new" / "_run").iterdir()] == ["a.bin"]

    def test_a_failed_write_leaves_what_was_there(self, tmp_path, monkeypatch):
        folder = Folder.of(str(tmp_path))
        folder.write("a.bin", b"old")

        def full(_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(OSError, match="No space left"):
                folder.write("a.bin", b"new")
        assert folder.read("a.bin") == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]

    def test_lists_what_matches_sorted(self, tmp_path):
        folder = Folder.of(str(tmp_path))
        for name in ("part-b.parquet", "part-a.parquet", "_run/x.json"):
            folder.write(name, b"")
        assert folder.list("part-*.parquet") == ["part-a.parquet", "part-b.parquet"]
        assert Folder.of(str(tmp_path / "none")).list("*") == []

    @pytest.mark.parametrize("name", ["a[1]", "what?", "star*", "a{b}"])
    def test_folders_may_have_signs_of_globs_in_their_names(self, name, tmp_path):
        (tmp_path / "a1").mkdir()
        (tmp_path / "a1" / "part-other.parquet").write_bytes(b"")
        folder = Folder.of(str(tmp_path / name))
        folder.write("part-a.parquet", b"x")
        assert folder.list("part-*.parquet") == ["part-a.parquet"]
        assert folder.exists("part-a.parquet")

    def test_json_comes_back(self, tmp_path):
        folder = Folder.of(str(tmp_path))
        folder.write_json("a.json", {"b": [1, None]})
        assert folder.read_json("a.json") == {"b": [1, None]}
        assert folder.exists("a.json")
        assert not folder.exists("b.json")

    @pytest.mark.parametrize("content", [b"", b'{"b": [1', b"\xff\xfe\x00", b"[1]"])
    def test_a_document_that_is_damaged_is_named(self, content, tmp_path):
        folder = Folder.of(f"file://{tmp_path}/")
        folder.write("_run/a.json", content)
        with pytest.raises(
            InputError, match=rf"^file://{tmp_path}/_run/a.json is damaged \(.*copy"
        ):
            folder.read_object("_run/a.json")
        with pytest.raises(FileNotFoundError):
            folder.read_object("_run/b.json")

    def test_other_filesystems(self):
        folder = Folder.of("memory://test_other_filesystems")
        folder.write("a/b.bin", b"x")
        assert not folder.is_local
        assert folder.read("a/b.bin") == b"x"
        assert folder.list("a/*.bin") == ["a/b.bin"]
