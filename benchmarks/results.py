"""Results of benchmarks: tables that are printed, and stored as JSON with machine and command.

The files in ``benchmarks/results/`` are checked in.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "Table", "machine", "save", "show", "spread"]

FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("ray", "torch", "open_clip_torch", "pyarrow", "pillow", "numpy")


@dataclass(frozen=True)
class Table:
    """A table of a benchmark's page.

    Attributes:
        title: What it compares, and in which unit.
        columns: Heads of the columns.
        rows: Cells, as they are printed.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Return the median with minimum and maximum: ``0.97 (0.95 to 0.98)``."""
    median, low, high = (form.format(f(values)) for f in (statistics.median, min, max))
    return f"{median} ({low} to {high})" if len(values) > 1 else median


def show(tables: Sequence[Table]) -> None:
    """Print tables, columns aligned."""
    for table in tables:
        cells = [list(map(str, row)) for row in (table.columns, *table.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        print(f"\n{table.title}")
        for row in cells:
            pairs = list(zip(row, widths, strict=True))
            first, *rest = pairs
            print(first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest), sep="  ")
    sys.stdout.flush()


def save(
    name: str,
    tables: Sequence[Table],
    *,
    notes: Sequence[str] = (),
    raw: Any = None,
    path: Path | None = None,
) -> Path:
    """Store the results of a benchmark.

    Args:
        name: The benchmark: ``decode`` for ``python -m benchmarks.decode``.
        tables: As shown.
        notes: Sentences below the tables.
        raw: Every measured value.
        path: The file; None is ``benchmarks/results/NAME.json``.

    Returns:
        The file.
    """
    path = path or FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "benchmark": name,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *_options()]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "tables": [asdict(table) for table in tables],
        "notes": list(notes),
        "raw": raw,
    }
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def _options() -> list[str]:
    """Return the options of this command that decide about the results, not where they are stored."""
    words = sys.argv[1:]
    for name in ("--json", "--folder", "--packages"):
        if name in words:
            place = words.index(name)
            del words[place : place + 2]
    for name in ("--photos", "--fresh"):
        if name in words:
            place = words.index(name) + 1
            words[place] = Path(words[place]).name
    return words


def machine() -> dict[str, Any]:
    """Return processor, cores, memory in GB and versions."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
