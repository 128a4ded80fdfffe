"""The table of export formats, and the one function that exports to any of them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from iqa_core.exporting.source import FinishedOutput
    from iqa_core.fetch.fetcher import Fetcher

__all__ = ["FORMATS", "Format", "check_format", "export"]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        function: Module of this package and name of the function that writes it.
        library: The package that it needs beyond pyarrow, as it is imported; empty if none.
        extra: The extra of this project that installs it.
        appends: Whether rows can be added to what exists, in one commit.
        fetches: Whether it reads the images.
    """

    function: str
    library: str = ""
    extra: str = ""
    appends: bool = False
    fetches: bool = False


FORMATS = {
    "parquet": Format("files:to_parquet"),
    "csv": Format("files:to_csv"),
    "hf": Format("hf:to_hf", "datasets", "hf"),
    "webdataset": Format("shards:to_webdataset", "webdataset", "webdataset", fetches=True),
    "lance": Format("tables:to_lance", "lance", "lance", appends=True),
    "iceberg": Format("tables:to_iceberg", "pyiceberg", "iceberg", appends=True),
    "delta": Format("tables:to_delta", "deltalake", "delta", appends=True),
}


def export(
    source: FinishedOutput,
    name: str,
    target: str,
    *,
    append: bool = False,
    fetcher: Fetcher | None = None,
    on_rows: Callable[[int], object] = lambda _: None,
) -> list[str]:
    """Export a finished output.

    Args:
        source: The output.
        name: One of ``FORMATS``.
        target: A path, a URI, or the name of a table, as the format has it.
        append: Add to what exists; without it, an existing target is refused.
        fetcher: Reads the images, for formats that hold them.
        on_rows: Called with the number of rows that were passed on, from time to time.

    Returns:
        Sentences on what was left out, or where.

    Raises:
        InputError: If the format's library is missing, the target exists or can't be written. Nothing that
            looks whole is left then.
    """
    found = FORMATS[name]
    check_format(name, append)
    module, _, function = found.function.partition(":")
    write = getattr(import_module(f"{__package__}.{module}"), function)
    more = (fetcher,) if found.fetches else ()
    notes: list[str] = write(source, target, append, on_rows, *more)
    return notes


def check_format(name: str, append: bool) -> None:
    """Refuse a format whose library is not installed, or that can't be appended to.

    Raises:
        InputError: If so.
    """
    found = FORMATS[name]
    if found.library and find_spec(found.library) is None:
        raise InputError(
            f"--to {name} needs the package {found.library}, which is not installed: "
            f"pip install 'distributed-iqa[{found.extra}]'"
        )
    if append and not found.appends:
        able = ", ".join(key for key, value in FORMATS.items() if value.appends)
        raise InputError(
            f"--append is not for --to {name}, which has no atomic append: export to a new place, or "
            f"to one of {able}"
        )
