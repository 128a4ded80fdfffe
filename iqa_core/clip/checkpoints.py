"""Files of weights: whatever container they come in, the tensors that they hold, by dotted name.

Reads safetensors (one file, or shards by their index), what ``torch.save`` writes, and TorchScript
archives; the content decides which it is, not the suffix. Nothing that a file holds is run: pickles are
read by torch's ``weights_only`` unpickler, and those of TorchScript by one that is stricter.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from iqa_core.clip.torchscript import is_torchscript, read_torchscript
from iqa_core.clip.weights_error import WeightsError
from iqa_core.redaction import error_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read_tensors"]

_HEAD = 512
_DEEPEST = 16
_ZIP = b"PK\x03\x04"

#: First bytes of files without usable tensors: offset, what they are, what to do.
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (
        0,
        b"version https://git-lfs.github.com/",
        "it is a Git LFS pointer, which stands for the weights in a repository",
        "run `git lfs pull` there, or download the file itself",
    ),
    (
        0,
        b"GGUF",
        "it is a GGUF file, in the quantized format of llama.cpp",
        "give the model's safetensors or PyTorch weights",
    ),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "it is an HDF5 file, as Keras and TensorFlow write it",
        "give the model's safetensors or PyTorch weights",
    ),
    (
        4,
        b"TFL3",
        "it is a TensorFlow Lite model",
        "give the model's safetensors or PyTorch weights",
    ),
    *(
        (0, magic, f"it is packed ({kind})", "unpack it and give the file of weights in it")
        for magic, kind in (
            (b"\x1f\x8b", "gzip"),
            (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
            (b"\x28\xb5\x2f\xfd", "Zstandard"),
            (b"\xfd7zXZ\x00", "xz"),
            (b"BZh", "bzip2"),
        )
    ),
)
#: Names of formats that have no first bytes of their own.
_SUFFIXES = {
    ".onnx": "it is an ONNX model",
    ".pb": "it is a TensorFlow graph",
    ".index": "it is the index of a TensorFlow checkpoint",
    ".meta": "it is the graph of a TensorFlow checkpoint",
    ".msgpack": "it is a Flax (JAX) checkpoint",
    ".engine": "it is a TensorRT engine",
    ".mlmodel": "it is a Core ML model",
}
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")

#: Plain data that training scripts store beside the weights; none of them can run anything.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    *(datetime.datetime, datetime.date, datetime.timedelta, datetime.timezone),
    *(frozenset, range, slice, bool, int, float, str),
    np.dtype,
    np.ndarray,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
    *(
        (value.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
        for name, value in (("scalar", np.float64(0)), ("_reconstruct", np.zeros(0)))
        for core in ("core", "_core")  # before NumPy 2 and since
    ),
    *(
        (kind, f"pathlib{module}.{name}")
        for module in ("", "._local")  # Python 3.13 writes the latter
        for name, kind in (
            ("PosixPath", pathlib.PurePosixPath),
            ("PurePosixPath", pathlib.PurePosixPath),
            ("WindowsPath", pathlib.PureWindowsPath),
            ("PureWindowsPath", pathlib.PureWindowsPath),
        )
    ),
]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read every tensor of a checkpoint.

    Args:
        path: A safetensors file, the JSON index of its shards, a file of ``torch.save`` or a
            TorchScript archive, whatever its suffix.

    Returns:
        Tensors of any type by their dotted name. What lies in containers is named by their keys:
        ``state_dict.visual.proj`` for ``{"state_dict": {"visual.proj": ...}}``.

    Raises:
        WeightsError: If it is none of these, is damaged, or holds no tensors.
        OSError: If it can't be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.lstrip()[:1] == b"{" and path.suffix == ".json":
        return _read_shards(path)
    return _read_one(path, head)


def _read_one(path: Path, head: bytes) -> dict[str, torch.Tensor]:
    if head[8:9] == b"{":  # of safetensors: its header's length, and the header
        tensors = _read_safetensors(path)
    elif head.startswith(_ZIP):
        tensors = _read_zip(path)
    elif head.startswith(b"\x80"):  # a pickle: the format of torch.save before version 1.6
        tensors = dict(_flatten(_unpickle(path, mmap=False)))
    else:
        raise _foreign(path, head)
    if not tensors:
        raise WeightsError(
            "it holds no tensors", "give the file that holds the weights of the whole CLIP"
        )
    return tensors


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"it is not a whole safetensors file: {error}", "download or copy it again"
        ) from error


def _read_shards(path: Path) -> dict[str, torch.Tensor]:
    """Read the shards that an index lists, which lie beside it."""
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            "it is JSON, but no index of shards", "give the file of weights that lies beside it"
        ) from error
    gone = [name for name in names if not (path.parent / name).is_file()]
    if gone:
        raise WeightsError(
            f"{len(gone)} of the {len(names)} shards that it lists are not beside it, such as "
            f"{gone[0]}",
            "download them into the same folder",
        )
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        shard = path.parent / name
        with shard.open("rb") as file:
            tensors |= _read_one(shard, file.read(_HEAD))
    return tensors


def _read_zip(path: Path) -> dict[str, torch.Tensor]:
    """Read what ``torch.save`` or ``torch.jit.save`` wrote; both are zip archives."""
    if not zipfile.is_zipfile(path):
        raise WeightsError("the file is cut short", "download or copy it again")
    with zipfile.ZipFile(path) as archive:
        if is_torchscript(archive):
            return read_torchscript(path)
        members = {name.rpartition("/")[2] for name in archive.namelist()}
    if "data.pkl" in members:
        # torch.load would take this suffix for the content.
        return dict(_flatten(_unpickle(path, mmap=path.suffix != ".safetensors")))
    raise WeightsError(
        "it is a zip archive, but not of PyTorch's", "unpack it and give the file of weights in it"
    )


def _unpickle(path: Path, *, mmap: bool) -> Any:  # noqa: ANN401 - what a file holds
    """Read a file of ``torch.save``; mapped, only what is used is read (no optimizer's state)."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore")  # of pickles that are none of torch.save's
            if mmap:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Not torch's own advice, which is to run the file's code.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None and zipfile.is_zipfile(path):
            raise WeightsError(
                "it is damaged, or holds more than torch reads without running code",
                "download or copy it again, or save the weights alone: torch.save("
                "model.state_dict(), FILE)",
            ) from error
        if found is None:
            raise WeightsError(
                "it is no file of torch.save, or is damaged",
                "give the model's safetensors or PyTorch weights",
            ) from error
        raise WeightsError(
            f"it holds objects of {found[1]} beside tensors, whose code would have to be run",
            "save the weights alone where that code is at home: torch.save(model.state_dict(), FILE)",
        ) from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file may raise anything
        raise WeightsError(
            f"the file is damaged or cut short: {error_line(error, 200)}",
            "download or copy it again",
        ) from error


def _flatten(
    content: Any,  # noqa: ANN401 - what a file holds
    name: str = "",
    depth: int = 0,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors in nested containers, each with the keys that lead to it."""
    if isinstance(content, torch.Tensor):
        yield name or "(without a name)", content
    elif depth < _DEEPEST and isinstance(content, (Mapping, list, tuple)):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _flatten(value, f"{name}.{key}" if name else str(key), depth + 1)


def _foreign(path: Path, head: bytes) -> WeightsError:
    """Describe a file that does not hold weights."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return WeightsError("the file is empty", "download or copy it again")
    for offset, magic, problem, advice in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            return WeightsError(problem, advice)
    if text.startswith(_PAGES):
        return WeightsError(
            "it is a web page or a server's error message, saved in place of the weights",
            "download them again; it may need a login, or another address",
        )
    if text.startswith(b"{"):
        return WeightsError(
            "it is JSON, as configurations are", "give the file of weights that lies beside it"
        )
    if path.suffix in _SUFFIXES:
        return WeightsError(
            _SUFFIXES[path.suffix], "give the model's safetensors or PyTorch weights"
        )
    if not head.strip(b"\0"):
        return WeightsError("it begins with zeros, as a broken download", "download it again")
    return WeightsError(
        f"it is neither safetensors nor a file of torch.save: it begins with {head[:12]!r}",
        "give the model's safetensors or PyTorch weights",
    )
