"""Keeps the logs of a package that writes to the root logger out of the user's."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["quiet"]


@contextmanager
def quiet(package: Path) -> Iterator[None]:
    """Keep the logs of open_clip and its downloads quiet; errors reach the user as errors.

    open_clip writes to the root logger itself. A filter there leaves the records of named loggers
    alone, such as those of this project's modules.

    Args:
        package: The folder whose modules' records on the root logger are dropped.
    """

    def is_of_others(record: logging.LogRecord) -> bool:
        return not Path(record.pathname).is_relative_to(package)

    root, hub = logging.getLogger(), logging.getLogger("huggingface_hub")
    level = hub.level
    silent = logging.NullHandler()
    root.addHandler(silent)  # else logging.info() on the root logger would set up a real one
    root.addFilter(is_of_others)
    hub.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")  # decided elsewhere
            yield
    finally:
        hub.setLevel(level)
        root.removeFilter(is_of_others)
        root.removeHandler(silent)
