"""Files of weights: every container gives the same tensors, and what is none is named."""

from __future__ import annotations

import argparse
import collections
import datetime
import gzip
import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from iqa_core.clip.checkpoints import read_tensors
from iqa_core.clip.weights_error import WeightsError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2.0)}


def same(found: dict[str, torch.Tensor], prefix: str = "") -> bool:
    return found.keys() == {prefix + name for name in WEIGHTS} and all(
        torch.equal(found[prefix + name], tensor) for name, tensor in WEIGHTS.items()
    )


def write_torchscript(path: Path) -> None:
    root = torch.nn.Module()
    root.a = torch.nn.Module()
    root.a.register_buffer("weight", WEIGHTS["a.weight"])
    root.register_buffer("b", WEIGHTS["b"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")
        torch.jit.script(root).save(str(path))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin", ".ckpt", ""])
def test_the_content_tells_the_container_not_the_suffix(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    for write in (
        lambda: save_file(WEIGHTS, path),
        lambda: torch.save(WEIGHTS, path),
        lambda: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
        lambda: write_torchscript(path),
    ):
        write()
        assert same(read_tensors(path))


def test_keys_of_containers_precede_the_names(tmp_path):
    content = {"epoch": 3, "nets": [{"ema": WEIGHTS}], "lr": 0.1, 7: {"nothing": None}}
    torch.save(content, tmp_path / "nested.pt")
    assert same(read_tensors(tmp_path / "nested.pt"), "nets.0.ema.")


def test_plain_data_of_training_scripts_is_no_hindrance(tmp_path):
    beside = {
        "args": argparse.Namespace(lr=np.float32(0.1), output=Path("runs/1")),
        "best": np.float64(0.5),
        "steps": np.int64(7),
        "curve": np.arange(3.0),
        "started": datetime.datetime(2024, 5, 17, tzinfo=datetime.UTC),
        "classes": frozenset({"good", "bad"}),
    }
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        torch.save(beside | {"model": WEIGHTS}, path, _use_new_zipfile_serialization=zipped)
        assert same(read_tensors(path), "model.")


def write_shards(folder: Path) -> Path:
    names = {}
    for number, (name, tensor) in enumerate(WEIGHTS.items(), 1):
        names[name] = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensor}, folder / names[name])
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return path


def test_shards_are_read_by_their_index(tmp_path):
    assert same(read_tensors(write_shards(tmp_path)))


def test_a_shard_that_is_not_there_is_named(tmp_path):
    path = write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert "1 of the 2 shards that it lists are not beside it, such as model-00002" in str(
        caught.value
    )


class Custom:
    """An object of a user's own class."""


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def as_saved(tmp_path: Path, write) -> bytes:
    write(tmp_path / "written")
    return (tmp_path / "written").read_bytes()


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip/weights.pt", b"")


FOREIGN = {
    "empty": (lambda _: b"", "the file is empty", "download or copy it again"),
    "zeros": (lambda _: bytes(2048), "begins with zeros", "download it again"),
    "lfs": (
        lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 605",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    "page": (lambda _: b"\n<!DOCTYPE html><title>Sign in</title>", "a web page", "login"),
    "refusal": (lambda _: b'<?xml version="1.0"?><Error><Code>AccessDenied', "error", "login"),
    "config": (lambda _: b'{"model_type": "clip"}', "it is JSON", "beside it"),
    "gguf": (lambda _: b"GGUF\x03\0\0\0", "a GGUF file", "safetensors or PyTorch"),
    "keras": (lambda _: b"\x89HDF\r\n\x1a\n\0", "HDF5 .* Keras", "safetensors or PyTorch"),
    "tflite": (lambda _: b"\x1c\0\0\0TFL3", "TensorFlow Lite", "safetensors or PyTorch"),
    "packed": (lambda _: gzip.compress(b"x"), r"packed \(gzip\)", "unpack it"),
    "text": (lambda _: b"some words", "begins with b'some words'", "safetensors or PyTorch"),
    "zip": (lambda folder: as_saved(folder, zipped), "a zip archive, but not", "unpack it"),
    "pickle": (lambda _: pickle.dumps({"a": [1.0]}), "no file of torch.save", "PyTorch weights"),
    "numbers": (
        lambda folder: as_saved(folder, lambda path: torch.save({"epoch": 3}, path)),
        "it holds no tensors",
        "the whole CLIP",
    ),
    "objects": (
        lambda folder: as_saved(folder, lambda path: torch.save([Custom(), WEIGHTS], path)),
        r"holds objects of [\w.]*\.Custom beside tensors",
        r"torch\.save\(model\.state_dict\(\)",
    ),
    "history": (
        lambda folder: as_saved(
            folder,
            lambda path: torch.save([collections.defaultdict(list, loss=[1.0]), WEIGHTS], path),
        ),
        r"holds objects of collections\.defaultdict",
        r"torch\.save\(model\.state_dict\(\)",
    ),
    "damaged zip": (
        lambda folder: as_saved(folder, lambda path: torch.save(WEIGHTS, path)).replace(
            b"ctorch._utils", b"\xfftorch._utils"
        ),
        "it is damaged, or holds more than torch reads",
        "save the weights alone",
    ),
    "module": (
        lambda folder: as_saved(folder, lambda path: torch.save(torch.nn.Linear(2, 2), path)),
        r"holds objects of torch\.nn\.modules\.linear\.Linear",
        r"torch\.save\(model\.state_dict\(\)",
    ),
    "cut zip": (
        lambda folder: cut(as_saved(folder, lambda path: torch.save(WEIGHTS, path))),
        "cut short",
        "download or copy it again",
    ),
    "cut safetensors": (
        lambda folder: cut(as_saved(folder, lambda path: save_file(WEIGHTS, path))),
        "not a whole safetensors file",
        "download or copy it again",
    ),
    "cut pickle": (
        lambda folder: cut(
            as_saved(
                folder,
                lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
            )
        ),
        "damaged",
        "again|PyTorch weights",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_file_of_weights_is_named_with_advice(kind, tmp_path):
    content, problem, advice = FOREIGN[kind]
    path = tmp_path / "weights.pt"
    path.write_bytes(content(tmp_path))
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    for text, pattern in ((caught.value.problem, problem), (caught.value.advice, advice)):
        assert re.search(pattern, text), text
        assert "\n" not in text
        assert "weights_only" not in text  # torch's advice, which would run the file's code


@pytest.mark.parametrize(
    ("suffix", "problem"), [(".onnx", "ONNX"), (".msgpack", "Flax"), (".index", "TensorFlow")]
)
def test_formats_without_first_bytes_are_told_by_their_suffix(suffix, problem, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert problem in caught.value.problem


def test_nothing_in_a_file_is_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    for zipped_too in (True, False):
        path = tmp_path / "x.pt"
        torch.save([Harm(), WEIGHTS], path, _use_new_zipfile_serialization=zipped_too)
        with pytest.raises(WeightsError):
            read_tensors(path)
    assert not (tmp_path / "harm").exists()
