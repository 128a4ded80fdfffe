"""Tests of iqa_core/storage/walk.py on real folders with links."""

from __future__ import annotations

import os

import pytest

from iqa_core.storage.walk import EntryKind, walk


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")


def found(root, accept=lambda *_: True, **options):
    """Return what a walk yields, as kind -> paths below the root."""
    entries: dict[EntryKind, list[str]] = {}
    for entry in walk(str(root), accept, **options):
        entries.setdefault(entry.kind, []).append(os.path.relpath(entry.path, root))
    return {kind: sorted(paths) for kind, paths in entries.items()}


def test_files_at_any_depth(tmp_path):
    make(tmp_path, "a", "b/c", "b/d/e")
    assert found(tmp_path) == {EntryKind.FILE: ["a", "b/c", "b/d/e"]}


def test_what_is_not_accepted_is_not_searched(tmp_path):
    make(tmp_path, "a", "b/c", "d/e")
    asked = []

    def accept(path, is_folder):
        asked.append((os.path.relpath(path, tmp_path), is_folder))
        return not path.endswith("/b")

    assert found(tmp_path, accept) == {EntryKind.FILE: ["a", "d/e"]}
    assert sorted(asked) == [("a", False), ("b", True), ("d", True), ("d/e", False)]


def test_a_folder_keeps_its_own_name(tmp_path):
    make(tmp_path, "b/c")
    (tmp_path / "a").symlink_to("b")
    assert found(tmp_path) == {EntryKind.FILE: ["b/c"], EntryKind.SEARCHED_BEFORE: ["a"]}
    (entry,) = [e for e in walk(str(tmp_path), lambda *_: True) if e.kind is not EntryKind.FILE]
    assert entry.detail == str(tmp_path / "b")


def test_links_are_followed_after_the_folders_behind_other_links(tmp_path):
    make(tmp_path, "far/x", "far/deep/y")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/1").symlink_to("../far")
    (tmp_path / "root/2").symlink_to("../far/deep")
    assert found(tmp_path / "root") == {
        EntryKind.FILE: ["1/deep/y", "1/x"],
        EntryKind.SEARCHED_BEFORE: ["2"],
    }


def test_which_of_two_links_gives_the_name(tmp_path):
    """The one that is nearer to the root, or the first by name."""
    make(tmp_path, "far/x", "root/a/y")
    (tmp_path / "root/a/z").symlink_to(tmp_path / "far")
    (tmp_path / "root/b").symlink_to(tmp_path / "far")
    root = tmp_path / "root"
    assert found(root)[EntryKind.FILE] == ["a/y", "b/x"]
    assert found(root, links_by_name=True)[EntryKind.FILE] == ["a/y", "a/z/x"]


def test_links_to_folders_above(tmp_path):
    make(tmp_path, "x", "root/y")
    (tmp_path / "root/up").symlink_to(tmp_path)
    assert found(tmp_path / "root") == {EntryKind.FILE: ["y"], EntryKind.ABOVE: ["up"]}
    followed = found(tmp_path / "root", follow_above=True)
    assert followed[EntryKind.FILE] == ["up/x", "y"]
    assert followed[EntryKind.SEARCHED_BEFORE] == ["up/root"]


def test_what_is_no_file(tmp_path):
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert found(tmp_path) == {
        EntryKind.BROKEN_LINK: ["gone", "self"],
        EntryKind.NOT_REGULAR: ["pipe"],
    }


def test_folders_that_cannot_be_listed(tmp_path, monkeypatch):
    make(tmp_path, "a/x", "b/y")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    entries = list(walk(str(tmp_path), lambda *_: True))
    assert [(e.kind, e.detail) for e in entries if e.path.endswith("/a")] == [
        (EntryKind.UNREADABLE, "Permission denied")
    ]
    assert found(tmp_path)[EntryKind.FILE] == ["b/y"]
    with pytest.raises(PermissionError):
        list(walk(str(tmp_path / "a"), lambda *_: True))


def test_a_root_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(walk(str(tmp_path / "none"), lambda *_: True))
