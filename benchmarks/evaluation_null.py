"""How often `iqa evaluate --resample-by` finds a difference where there is none.

    python -m benchmarks.evaluation_null [--studies 600] [--resamples 400]

A study has 8, 30 or 81 references with 24 images each. Two models are equally good: the scores of both
are the label plus errors of the same distribution, half of their variance common to all images of a
reference (as the content is what models mostly err about). Counted are the studies in which p of the
difference in SRCC is below 0.05: by the clustered bootstrap as the command prints it, by plain
percentiles of the same resamples, and by Meng's test, which takes images for independent. Studies are
counted in the table.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from benchmarks.results import Table, save, show
from iqa_core.evaluation.bootstrap import bootstrap_p_value
from iqa_core.evaluation.correlations import srcc, weighted_srcc
from iqa_core.evaluation.significance import meng_test

_IMAGES = 24
_REFERENCES = (8, 30, 81)


def study(references: int, rng: np.random.Generator, resamples: int) -> tuple[float, float, float]:
    """Return the p-values of one study: clustered, plain percentiles, Meng."""
    code = np.repeat(np.arange(references), _IMAGES)
    label = rng.normal(size=len(code)) + 0.3 * rng.normal(size=references)[code]
    scores = [
        label
        + 0.6 * (rng.normal(size=references)[code] + rng.normal(size=len(code))) / math.sqrt(2)
        for _ in range(2)
    ]
    drawn = rng.multinomial(references, np.full(references, 1 / references), size=resamples)
    counts = drawn[:, code]
    first, second = (weighted_srcc(one, label, counts) for one in scores)
    values = [srcc(one, label) for one in scores]
    _, p = meng_test(values[0], values[1], srcc(*scores), len(code), ranks=True)
    difference = first - second
    return bootstrap_p_value(difference, references), bootstrap_p_value(difference), p


def main() -> None:
    """Print and store the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=600)
    parser.add_argument("--resamples", type=int, default=400)
    arguments = parser.parse_args()
    rows, raw = [], {}
    for references in _REFERENCES:
        rng = np.random.default_rng(references)
        p = np.array(
            [study(references, rng, arguments.resamples) for _ in range(arguments.studies)]
        )
        shares = (p < 0.05).mean(axis=0)
        error = 100 * math.sqrt(0.05 * 0.95 / arguments.studies)
        rows.append(
            [str(references), str(arguments.studies), *(f"{100 * s:.1f} %" for s in shares)]
        )
        raw[str(references)] = {"p": p.round(5).tolist(), "standard_error_of_5_percent": error}
    head = [
        "references",
        "studies",
        "clustered bootstrap (printed)",
        "plain percentiles",
        "Meng's test",
    ]
    tables = [Table("Studies without a difference in which p is below 0.05", head, rows)]
    note = f"A true share of 5 % would be seen with a standard error of {error:.1f} %."
    show(tables)
    print(note)
    save("evaluation_null", tables, notes=[note], raw=raw)


if __name__ == "__main__":
    main()
