"""What ``--decode fast`` changes in scores, beside what it changes in pixels (benchmarks/decode.py).

    python -m benchmarks.decode_scores [--quick] [--sizes 640 1024 2048 3000] [--model tiny] [--json FILE]

The photographs of benchmarks/photos.py, enlarged, distorted and written as JPEG, are scored from both
modes by one tower. Compare the difference with the spread of the scores themselves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.photos import encode, enlarge, photographs
from benchmarks.results import Table, save, show
from iqa_core import Scorer
from iqa_core.evaluation.correlations import srcc
from tools.distortions import apply

_KINDS = ("gaussian_blur", "gaussian_noise", "jpeg", "dark")
_LEVELS = (1, 3, 5)

#: Mean and largest difference with `fast` of version 0.2, by longer side, for ``tiny``.
BEFORE: dict[int, tuple[float, float]] = {}


def files_of(size: int) -> list[bytes]:
    """Return JPEG files whose longer side has ``size`` pixels, clean and distorted."""
    files = []
    for photo in photographs():
        clean = np.asarray(enlarge(photo, size))
        images = [clean, *(apply(clean, kind, level) for kind in _KINDS for level in _LEVELS)]
        files += [encode(Image.fromarray(image), "JPEG") for image in images]
    return files


def main() -> None:
    """Print the table, and store it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[640, 1024, 2048, 3000])
    parser.add_argument("--quick", action="store_true", help="the smallest size only")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--json", type=Path, help="also store the results in this file")
    arguments = parser.parse_args()
    scorers = {mode: Scorer(arguments.model, decode=mode) for mode in ("exact", "fast")}
    rows, raw = [], {}
    for size in sorted(arguments.sizes)[: 1 if arguments.quick else None]:
        files = files_of(size)
        exact, fast = (scorers[mode].score(files).score for mode in ("exact", "fast"))
        change = np.abs(fast - exact)
        before = BEFORE.get(size) if arguments.model == "tiny" else None
        rows.append(
            [
                str(size),
                str(len(files)),
                f"{exact.mean():.3f}",
                f"{exact.std():.3f}",
                f"{change.mean():.5f}",
                f"{change.max():.5f}",
                f"{before[0]:.5f}, {before[1]:.5f}" if before else "",
                f"{srcc(fast, exact):.5f}",
            ]
        )
        raw[size] = {"exact": exact.tolist(), "fast": fast.tolist()}
        print(*rows[-1], flush=True)
    columns = ["longer side", "JPEG files", "score, exact: mean", "standard deviation"]
    columns += ["|fast - exact|: mean", "max", "mean, max in 0.2", "SRCC of fast and exact"]
    tables = [Table(f"Scores of {arguments.model} from `fast` and `exact`", columns, rows)]
    show(tables)
    if arguments.json:
        save("decode_scores", tables, raw=raw, path=arguments.json)


if __name__ == "__main__":
    main()
