"""TorchScript archives, the format of OpenAI's weights: their tensors, without ``torch.jit``.

An archive is a zip of ``code/`` (the modules' source), ``data.pkl`` (the tree of modules, whose tensors
refer to records by their keys) and ``data/KEY`` (the records' bytes), below one folder. Only the tree and
the records are read. The unpickler knows no global but the few below, none of which does anything but
hold data, so nothing in a file is run.

Source:
    The layout and the pickle's globals are those of ``torch.jit.save``
    (https://github.com/pytorch/pytorch/blob/main/torch/csrc/jit/docs/serialization.md).
"""

from __future__ import annotations

import ast
import io
import math
import mmap
import pickle
import re
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from iqa_core.clip.weights_error import WeightsError
from iqa_core.redaction import error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["is_torchscript", "read_torchscript"]

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
#: Name and extra field of a zip's local header: their lengths stand at its end.
_LOCAL_HEADER = struct.Struct("<26x2H")
_NAMES = re.compile(r"^  __(?:parameters|buffers)__ = (\[.*\])$", re.MULTILINE)
_CLASS = re.compile(r"^class (\w+)\(Module\):$", re.MULTILINE)
_ADVICE = "save the weights alone: torch.save(model.state_dict(), FILE)"


class _Module:
    """A module of the archive: the name of its class, and its attributes."""

    name: str
    attributes: dict[str, Any]

    def __setstate__(self, state: object) -> None:
        self.attributes = dict(state) if isinstance(state, dict) else {}


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Return whether a zip archive is one that ``torch.jit.save`` wrote."""
    return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """Read the parameters and buffers of a TorchScript archive.

    Args:
        path: A file for which :func:`is_torchscript` holds.

    Returns:
        Tensors by their dotted names, as ``torch.jit.load(path).state_dict()`` names them. They are
        mapped from the file: what is not used is not read.

    Raises:
        WeightsError: If the archive is damaged, or holds objects other than modules of tensors.
        OSError: If it can't be read.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            root = _root(archive)
            content = archive.read(f"{root}data.pkl")
            tree = _Unpickler(content, _Records(archive, mapped, root)).load()
            declared = _declared_names(archive, root)
            return dict(_tensors(tree, declared))
    except (WeightsError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes of zipfile and the unpickler
        raise WeightsError(
            f"the TorchScript archive is damaged or cut short: {error_line(error, 200)}",
            "download or copy it again",
        ) from error


def _root(archive: zipfile.ZipFile) -> str:
    """Return the folder within the archive that everything is in, with a slash behind it."""
    [name] = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
    return name.removesuffix("data.pkl")


class _Records:
    """The tensors' bytes, mapped from the file.

    Args:
        archive: The zip.
        mapped: The file's bytes; writable, as torch wants, but never written back.
        root: Folder within the archive.
    """

    def __init__(self, archive: zipfile.ZipFile, mapped: mmap.mmap, root: str) -> None:
        self._archive = archive
        self._mapped = mapped
        self._root = root
        self._known: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def storage(self, key: str, dtype: torch.dtype) -> torch.Tensor:
        """Return all numbers of a record, (N,) of a type."""
        if (key, dtype) not in self._known:
            self._known[key, dtype] = self._read(f"{self._root}data/{key}", dtype)
        return self._known[key, dtype]

    def _read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        record = self._archive.getinfo(name)
        count = record.file_size // dtype.itemsize
        if not count:
            return torch.empty(0, dtype=dtype)
        if record.compress_type != zipfile.ZIP_STORED:
            return torch.frombuffer(bytearray(self._archive.read(name)), dtype=dtype, count=count)
        lengths = _LOCAL_HEADER.unpack_from(self._mapped, record.header_offset)
        start = record.header_offset + _LOCAL_HEADER.size + sum(lengths)
        return torch.frombuffer(self._mapped, dtype=dtype, count=count, offset=start)


class _Unpickler(pickle.Unpickler):
    """Reads the tree of modules; refuses every global that is not needed for it.

    Args:
        content: The pickle.
        records: The tensors' bytes.
    """

    def __init__(self, content: bytes, records: _Records) -> None:
        super().__init__(io.BytesIO(content))
        self._records = records
        self._classes: dict[str, type[_Module]] = {}

        # Made anew for each file: a pickle can set attributes of what it gets.
        def rebuild(
            storage: torch.Tensor, offset: int, size: tuple, stride: tuple, *_: object
        ) -> torch.Tensor:
            return _view(storage, offset, size, stride)

        def untagged(value: object, _: object) -> object:
            return value

        self._globals: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": lambda: {},
            "torch._utils._rebuild_tensor_v2": rebuild,
            "torch.device": lambda *_: None,
            "torch.jit._pickle.restore_type_tag": untagged,
            **{
                f"torch.jit._pickle.build_{kind}list": lambda items: items
                for kind in ("int", "double", "bool", "tensor", "complex")
            },
        }

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as in the base class
        """Return what stands for a global.

        Raises:
            WeightsError: If it is none of those that a tree of modules needs.
        """
        full = f"{module}.{name}"
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if full in self._globals:
            return self._globals[full]
        if module == "__torch__" or module.startswith("__torch__."):
            if full not in self._classes:
                self._classes[full] = type("Module", (_Module,), {"name": full})
            return self._classes[full]
        raise WeightsError(
            f"it holds objects of {full} beside tensors, whose code would have to be run", _ADVICE
        )

    def persistent_load(self, pid: Any) -> torch.Tensor:  # noqa: ANN401 - as in the base class
        """Return the record that a tensor refers to."""
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError(f"unknown reference {kind!r}")
        return self._records.storage(str(key), dtype)


def _view(storage: torch.Tensor, offset: int, size: tuple, stride: tuple) -> torch.Tensor:
    """Return a view of a record, or raise ValueError if it reaches beyond the record."""
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise ValueError("a tensor has an impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= len(storage):
        raise ValueError("a tensor reaches beyond its record")
    return storage.as_strided(size, stride, offset)


def _declared_names(archive: zipfile.ZipFile, root: str) -> dict[str, frozenset[str]]:
    """Return the names of each class's parameters and buffers, as the archive's source lists them.

    Other tensors of a module, such as an attention mask, are no weights.
    """
    declared: dict[str, frozenset[str]] = {}
    code = f"{root}code/"
    for name in archive.namelist():
        if not (name.startswith(f"{code}__torch__") and name.endswith(".py")):
            continue
        module = name.removeprefix(code).removesuffix(".py").replace("/", ".")
        _, *parts = _CLASS.split(archive.read(name).decode())
        for title, body in zip(parts[::2], parts[1::2], strict=True):
            lists = (ast.literal_eval(text) for text in _NAMES.findall(body))
            declared[f"{module}.{title}"] = frozenset(
                str(entry) for part in lists for entry in part
            )
    return declared


def _tensors(
    module: object,
    declared: dict[str, frozenset[str]],
    prefix: str = "",
    above: tuple[object, ...] = (),
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters and buffers of a module and of those in it, with dotted names."""
    if not isinstance(module, _Module):
        raise ValueError(f"it holds a {type(module).__name__} in place of a module")
    if any(module is parent for parent in above):
        raise ValueError("a module contains itself")
    attributes = getattr(module, "attributes", {})
    own = declared.get(module.name)
    for name, value in attributes.items():
        if isinstance(value, torch.Tensor) and (own is None or name in own):
            yield f"{prefix}{name}", value
    for name, value in attributes.items():
        if isinstance(value, _Module):
            yield from _tensors(value, declared, f"{prefix}{name}.", (*above, module))
