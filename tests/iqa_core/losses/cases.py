"""What the tests of the losses share: cases, random lists, slow implementations' helpers."""

from __future__ import annotations

from math import exp, sqrt

import pytest
import torch

from iqa_core.losses.table import LOSSES, make_loss

#: Every loss, and every hyper-parameter away from its default at least once.
CASES = {
    **{name: (name, {}) for name in LOSSES},
    "ranknet-soft": ("ranknet", {"temperature": 0.3}),
    "ranknet-confident": ("ranknet", {"confident": 0.6}),
    "ranknet-both": ("ranknet", {"temperature": 0.3, "confident": 0.4}),
    "margin-0.3": ("margin", {"margin": 0.3, "confident": 0.3}),
    "fidelity-soft": ("fidelity", {"temperature": 0.3}),
    "fidelity-confident": ("fidelity", {"confident": 0.5}),
    "listnet-warm": ("listnet", {"temperature": 1.0}),
    "approx-ndcg-sharp": ("approx-ndcg", {"temperature": 0.2, "grades": 1.0}),
    "soft-spearman-sharp": ("soft-spearman", {"temperature": 0.2}),
    "upl-2": ("upl", {"top": 2}),
}
every_case = pytest.mark.parametrize("case", CASES)


def loss_of(case: str):
    name, hyper_parameters = CASES[case]
    return make_loss(name, **hyper_parameters)


def random_lists(seed: int = 0, lists: int = 12, length: int = 9):
    """Margins and targets with ties, and a mask that leaves 0 to `length` images in a list."""
    generator = torch.Generator().manual_seed(seed)
    margins = 3 * torch.randn(lists, length, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 6, (lists, length), generator=generator).double() / 5
    mask = torch.rand(lists, length, generator=generator) < 0.7
    mask[0] = True
    mask[1] = False
    mask[2] = torch.arange(length) == 4
    return margins, targets, mask


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0


#: Three images; the target order is 0 above 2 above 1.
M = [2.0, 1.0, -1.0]
T = [0.9, 0.1, 0.5]


def value(name, m=M, t=T, **hyper_parameters) -> float:
    lists = [torch.tensor(x, dtype=torch.float64) for x in (m, t)]
    return make_loss(name, **hyper_parameters)(*lists).item()


def compare_with_slow(slow, case, seed):
    """Compare a loss with a slow implementation on plain numbers, list by list, without masks."""
    name, hyper_parameters = CASES[case]
    margins, targets, mask = random_lists(seed)
    expected = [
        slow(m[keep].tolist(), t[keep].tolist(), **hyper_parameters)
        for m, t, keep in zip(margins, targets, mask, strict=True)
    ]
    found = make_loss(name, **hyper_parameters)(margins, targets, mask)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )


def slow_correlation(x, y):
    x = [value - mean(x) for value in x]
    y = [value - mean(y) for value in y]
    norms = sqrt(sum(a * a for a in x)) * sqrt(sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / norms


def write_package(folder, module, source, **losses):
    """Write a package as an installer leaves it: a module, and entry points for its losses.

    Args:
        folder: Folder that will be on ``sys.path``.
        module: Name of the module, and of the package.
        source: The module's text.
        **losses: By name of a loss: the name of its function.
    """
    (folder / f"{module}.py").write_text(source)
    information = folder / f"{module}-1.2.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
    lines = [f"{name} = {module}:{function}" for name, function in losses.items()]
    (information / "entry_points.txt").write_text("\n".join(["[iqa.losses]", *lines]) + "\n")
