"""Arrays in NumPy's ``.npy`` and ``.npz`` files, read in slices; never a pickled object.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. What differs from
``numpy.load``: files on any filesystem of fsspec are read by ranges, and a compressed ``.npz`` as a
stream, so that no array has to fit into memory.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from iqa_core.errors import InputError
from iqa_core.redaction import error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.storage.folder import Folder

__all__ = ["ArrayFile"]

_SAMPLES = 16
_SAMPLE_BYTES = 64 * 1024


@dataclass(frozen=True)
class ArrayFile:
    """One two-dimensional array of floats in a file.

    Attributes:
        folder: Where the file is.
        name: The file.
        member: Of an ``.npz``: the name of the array in it, with ``.npy``; None for ``.npy``.
        shape: (N, D).
        dtype: Its type.
        offset: Bytes before the first value, in the file or in the member.
        is_fortran: Whether it is stored column by column.
        size: Bytes of the file.
    """

    folder: Folder
    name: str
    member: str | None
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    offset: int
    is_fortran: bool
    size: int

    @classmethod
    def of(cls, folder: Folder, name: str, key: str | None = None) -> ArrayFile:
        """Read the header of a file.

        Args:
            folder: Where the file is.
            name: The file.
            key: Of an ``.npz`` with several arrays: which one.

        Raises:
            InputError: If it can't be read, or holds something else than floats (N, D).
        """
        shown = folder.path(name)
        try:
            with folder.fs.open(folder.path(name), "rb") as file:
                size = int(folder.fs.size(folder.path(name)))
                if not zipfile.is_zipfile(file):
                    file.seek(0)
                    return cls._of_header(file, folder, name, None, size)
                with zipfile.ZipFile(file) as archive:
                    member = _member(archive, shown, key)
                    with archive.open(member) as stored:
                        return cls._of_header(stored, folder, name, member, size)
        except InputError:
            raise
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(
                f"{shown} is not a readable NumPy file ({error_line(error)}): write it by numpy.save"
            ) from error

    @classmethod
    def _of_header(
        cls,
        file: Any,  # noqa: ANN401 - a file of any filesystem, or a zip's member
        folder: Folder,
        name: str,
        member: str | None,
        size: int,
    ) -> ArrayFile:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
        shown = folder.path(name)
        if dtype.hasobject:
            raise InputError(
                f"{shown} holds pickled Python objects, which can run code when they are read: save the "
                "features as an array of float16 or float32"
            )
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise InputError(
                f"{shown} holds {dtype}, but features are float16, float32 or float64: save it as such"
            )
        if len(shape) != 2:
            raise InputError(
                f"{shown} has the shape {shape}, but features are (rows, width): reshape it"
            )
        if member is None and size < file.tell() + dtype.itemsize * shape[0] * shape[1]:
            raise InputError(
                f"{shown} ends before its {shape[0]:,} rows of {shape[1]:,} values do: copy it again"
            )
        return cls(folder, name, member, shape, dtype, file.tell(), is_fortran, size)

    @property
    def rows(self) -> int:
        """Number N of rows."""
        return self.shape[0]

    @property
    def column(self) -> str | None:
        """The array's name in an ``.npz``; None for ``.npy``."""
        return None if self.member is None else self.member.removesuffix(".npy")

    def slices(self) -> ArraySlices:
        """Return a reader of consecutive slices, from the first row on."""
        return ArraySlices(self)

    def digest(self) -> str:
        """Return a digest of the file's size and of samples of its bytes, all of them if it is small."""
        found = hashlib.blake2b(str(self.size).encode(), digest_size=16)
        path = self.folder.path(self.name)
        step = max(_SAMPLE_BYTES, -(-self.size // _SAMPLES))
        try:
            with self.folder.fs.open(path, "rb") as file:
                for start in range(0, self.size, step):
                    file.seek(start)
                    found.update(file.read(_SAMPLE_BYTES))
        except OSError as error:
            raise InputError(f"{path} can't be read ({error_line(error)})") from error
        return f"sample {found.hexdigest()}"

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the rows from ``start`` to before ``stop`` of an ``.npy`` file, (stop - start, D).

        Raises:
            InputError: If they can't be read.
        """
        path = self.folder.path(self.name)
        try:
            if self.is_fortran:
                return np.ascontiguousarray(self._mapped()[start:stop])
            row = self.shape[1] * self.dtype.itemsize
            first, last = self.offset + start * row, self.offset + stop * row
            if self.folder.is_local:
                values = np.fromfile(path, self.dtype, (stop - start) * self.shape[1], "", first)
                if len(values) < (stop - start) * self.shape[1]:
                    raise OSError("it ends too early")
                values = values.reshape(-1, self.shape[1])
                return values.astype(self.dtype.newbyteorder("="), copy=False)
            data = self.folder.retried(lambda: self.folder.fs.cat_file(path, start=first, end=last))
            if len(data) < last - first:
                raise OSError(f"it ends {last - first - len(data):,} bytes too early")
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: rows {start:,} to {stop - 1:,} can't be read ({error_line(error)}): copy the "
                "file "
                "again"
            ) from error
        return _native(data, self.dtype, self.shape[1])

    def _mapped(self) -> np.ndarray:
        if not self.folder.is_local:
            raise OSError("it is stored column by column: save numpy.ascontiguousarray of it")
        place = self.folder.path(self.name)
        return np.memmap(place, self.dtype, "r", self.offset, self.shape, order="F")


class ArraySlices:
    """Reads an array from its first row on, slice by slice; of an ``.npz`` as a stream."""

    def __init__(self, array: ArrayFile) -> None:
        self._array = array
        self._next = 0
        self._stream: Iterator[np.ndarray] | None = None
        self._wanted = 0

    def take(self, rows: int) -> Callable[[], np.ndarray]:
        """Return a function that returns the next rows; it may run in another thread."""
        start, self._next = self._next, self._next + rows
        if self._array.member is None:
            return lambda: self._array.read(start, start + rows)
        if self._stream is None:
            self._stream = self._members()
        self._wanted = rows
        found = next(self._stream)
        return lambda: found

    def _members(self) -> Iterator[np.ndarray]:
        array = self._array
        path = array.folder.path(array.name)
        try:
            with array.folder.fs.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                if array.is_fortran:
                    raise OSError(
                        "it is stored column by column: save numpy.ascontiguousarray of it"
                    )
                with archive.open(str(array.member)) as stored:
                    stored.read(array.offset)
                    while True:
                        size = self._wanted * array.shape[1] * array.dtype.itemsize
                        data = stored.read(size)
                        if len(data) < size:
                            raise EOFError(f"it ends {size - len(data):,} bytes too early")
                        yield _native(data, array.dtype, array.shape[1])
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path}: {array.member} can't be read ({error_line(error)}): copy the file again"
            ) from error


def _native(data: bytes, dtype: np.dtype[Any], width: int) -> np.ndarray:
    """Return (N, D) values in this machine's byte order."""
    values = np.frombuffer(data, dtype).reshape(-1, width)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _member(archive: zipfile.ZipFile, shown: str, key: str | None) -> str:
    arrays = [name for name in archive.namelist() if name.endswith(".npy")]
    keys = [name.removesuffix(".npy") for name in arrays]
    if key is None and len(arrays) == 1:
        return arrays[0]
    if key is None:
        raise InputError(
            f"{shown} has the arrays {', '.join(keys) or '(none)'}: name that of the image features, "
            "such as "
            f"--features-column {next((name for name in keys if 'im' in name), 'l14_img')}"
        )
    if key not in keys:
        raise InputError(
            f"--features-column {key} is no array of {shown}, which has {', '.join(keys)}: name one of "
            "these"
        )
    return f"{key}.npy"
