"""What ``--decode fast`` changes in scores, beside what it changes in pixels (benchmarks/decode.py).

    python -m benchmarks.decode_scores [--sizes 640 1024 2048 3000] [--model tiny]

The photographs of benchmarks/decode.py, enlarged, distorted and written as JPEG, are scored from
both modes by one tower. Compare the difference with the spread of the scores themselves.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

from benchmarks.decode import encode, enlarge, photographs
from iqa_core import Scorer
from iqa_core.evaluation.correlations import srcc
from tools.distortions import apply

_KINDS = ("gaussian_blur", "gaussian_noise", "jpeg", "dark")
_LEVELS = (1, 3, 5)


def files_of(size: int) -> list[bytes]:
    """Return JPEG files whose longer side has ``size`` pixels, clean and distorted."""
    files = []
    for photo in photographs():
        clean = np.asarray(enlarge(photo, size))
        images = [clean, *(apply(clean, kind, level) for kind in _KINDS for level in _LEVELS)]
        files += [encode(Image.fromarray(image), "JPEG") for image in images]
    return files


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[640, 1024, 2048, 3000])
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    scorers = {mode: Scorer(arguments.model, decode=mode) for mode in ("exact", "fast")}
    print("        JPEG   score, exact      |fast - exact|")
    print("size   files   mean     std     mean      max      SRCC of fast and exact")
    for size in arguments.sizes:
        files = files_of(size)
        exact, fast = (scorers[mode].score(files).score for mode in ("exact", "fast"))
        change = np.abs(fast - exact)
        print(
            f"{size:4d} {len(files):7d} {exact.mean():6.3f}  {exact.std():6.3f}  {change.mean():7.5f}"
            f"  {change.max():7.5f}  {srcc(fast, exact):9.5f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
