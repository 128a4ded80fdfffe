"""Tests of iqa_core/clip/facts.py: facts without loading, and never those of other weights."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from iqa_core.clip import facts as module
from iqa_core.clip.facts import ModelFacts, known_facts, remember_facts, with_absolute_file
from iqa_core.clip.load import load_towers


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "distributed-iqa" / "models"


@pytest.fixture
def model(files, tmp_path):
    """A model in a file of its own, which tests may change."""
    path = tmp_path / "state.pt"
    path.write_bytes(Path(files["state.pt"]).read_bytes())
    return f"small-vit@{path}"


@pytest.fixture
def towers(model):
    return load_towers(model)


def entries(cache):
    return list(cache.iterdir()) if cache.exists() else []


def test_the_facts_of_tiny_are_those_of_its_weights():
    assert known_facts("tiny", "model") == ModelFacts.of(load_towers("tiny"))


def test_nothing_is_kept_of_tiny(cache):
    remember_facts(load_towers("tiny"), "model")
    assert entries(cache) == []


def test_remembered_facts_are_those_of_the_loaded_model(model, towers, cache):
    assert known_facts(model, "model") is None
    remember_facts(towers, "model")
    assert known_facts(model, "model") == ModelFacts.of(towers)
    assert len(entries(cache)) == 1
    assert known_facts(model, "native") is None
    assert known_facts(model.replace("small-vit", "small-vit-quickgelu"), "model") is None


def test_the_same_text_in_another_folder_is_another_model(towers, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remember_facts(replace(towers, name="small-vit@state.pt"), "model")
    assert known_facts("small-vit@state.pt", "model").digest == towers.digest
    assert known_facts(model, "model").name == model
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert known_facts("small-vit@state.pt", "model") is None


@pytest.mark.parametrize("change", ["time", "size", "gone", "config.json", "link"])
def test_a_changed_file_is_not_known(change, towers, model, tmp_path):
    path = tmp_path / "state.pt"
    remember_facts(towers, "model")
    state = path.stat()
    if change == "time":
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    elif change == "size":
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "gone":
        path.unlink()
    elif change == "config.json":  # it may say which activation the weights need
        (tmp_path / "config.json").write_text("{}")
    else:
        path.rename(tmp_path / "moved.pt")
        path.symlink_to("moved.pt")
    assert known_facts(model, "model") is None


def test_a_change_while_the_file_is_read_is_noticed(model, monkeypatch, tmp_path):
    from iqa_core.clip import open_clip

    path = tmp_path / "state.pt"
    read = open_clip.read_tensors

    def read_and_change(path):
        tensors = read(path)
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        return tensors

    monkeypatch.setattr(open_clip, "read_tensors", read_and_change)
    remember_facts(load_towers(f"small-vit@{path}"), "model")
    assert known_facts(model, "model") is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"key": 1}', b"\xff\xfe"])
def test_a_damaged_entry_is_ignored_and_written_again(damage, towers, model, cache):
    remember_facts(towers, "model")
    (entry,) = entries(cache)
    entry.write_bytes(damage)
    assert known_facts(model, "model") is None
    remember_facts(towers, "model")
    assert known_facts(model, "model") == ModelFacts.of(towers)
    assert entries(cache) == [entry]


def test_another_format_or_version_is_not_known(towers, model, monkeypatch):
    remember_facts(towers, "model")
    monkeypatch.setattr(module, "version", lambda name: "9.9")
    assert known_facts(model, "model") is None
    monkeypatch.undo()


def test_a_cache_folder_that_cannot_be_written(towers, model, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember_facts(towers, "model")
    assert known_facts(model, "model") is None


def test_a_model_of_unknown_files_is_not_remembered(towers, model, cache):
    remember_facts(replace(towers, files=()), "model")
    assert entries(cache) == []


def test_only_files_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_absolute_file("RN50@a/b.pt#x") == f"RN50@{tmp_path}/a/b.pt#x"
    for text in ("tiny", "RN50/openai", "hf-hub:org/repo@main", "mine:a@b"):
        assert with_absolute_file(text) == text
