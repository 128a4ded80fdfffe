"""Tests of iqa_core/losses/table.py: what every loss guarantees, hyper-parameters, losses of others."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch.autograd import gradcheck

from iqa_core.errors import InputError
from iqa_core.losses.table import LOSSES, find_loss, loss_names, make_loss
from tests.iqa_core.losses import test_linear, test_listwise, test_pairwise, test_pseudo_labels
from tests.iqa_core.losses.cases import (
    CASES,
    every_case,
    loss_of,
    random_lists,
    value,
    write_package,
)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"listnet"}))
def test_the_right_order_costs_less_than_the_wrong_one(name):
    right = value(name, m=[8.0, -8.0, 0.0])
    wrong = value(name, m=[-8.0, 8.0, 0.0])
    assert right < 0.1 < wrong


@pytest.mark.parametrize("name", ["listmle", "ranknet", "fidelity", "margin", "soft-spearman"])
def test_only_the_order_of_the_targets_counts(name):
    assert value(name) == pytest.approx(value(name, t=[70.0, -3.0, 20.0]))


@every_case
def test_gradients_equal_finite_differences(case):
    margins, targets, mask = random_lists(seed=5, lists=5, length=6)
    loss = loss_of(case)
    assert gradcheck(lambda m: loss(m, targets, mask), margins.requires_grad_())


@every_case
def test_a_mask_removes_the_images(case):
    margins, targets, mask = random_lists(seed=7)
    margins.requires_grad_()
    loss = loss_of(case)
    masked = loss(torch.where(mask, margins, torch.nan), targets.where(mask, torch.nan), mask)
    gradient = torch.autograd.grad(masked.sum(), margins)[0]
    for i, keep in enumerate(mask):
        if not keep.any():
            assert masked[i] == 0
            continue
        alone = margins[i][keep].detach().requires_grad_()
        expected = loss(alone, targets[i][keep])
        torch.testing.assert_close(masked[i], expected)
        torch.testing.assert_close(gradient[i][keep], torch.autograd.grad(expected, alone)[0])
    assert (gradient[~mask] == 0).all()


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_are_finite_at_large_margins(case, dtype):
    targets = torch.tensor([0.0, 0.0, 0.3, 0.6, 1.0, 1.0]).expand(4, 6)
    margins = torch.tensor(
        [
            [100.0, -100, 100, -100, 100, -100],
            [100.0, 100, 50, 0, -100, -100],
            [-100.0, -100, -50, 0, 100, 100],
            [100.0] * 6,
        ],
        dtype=dtype,
        requires_grad=True,
    )
    found = loss_of(case)(margins, targets)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.isfinite().all()
    assert torch.autograd.grad(found.sum(), margins)[0].isfinite().all()


@every_case
def test_the_order_of_the_images_does_not_matter(case):
    margins, targets, mask = random_lists(seed=11)
    margins.requires_grad_()
    order = torch.randperm(margins.shape[1], generator=torch.Generator().manual_seed(1))
    loss = loss_of(case)
    found = loss(margins, targets, mask)
    shuffled = loss(margins[:, order], targets[:, order], mask[:, order])
    torch.testing.assert_close(shuffled, found)
    gradients = [torch.autograd.grad(x.sum(), margins)[0] for x in (found, shuffled)]
    torch.testing.assert_close(*gradients)


@every_case
def test_lists_are_independent_and_targets_broadcast(case):
    margins, targets, _ = random_lists(seed=13)
    loss = loss_of(case)
    whole = loss(margins, targets[3])
    assert whole.shape == margins.shape[:1]
    one_by_one = [loss(m, targets[3]) for m in margins]
    torch.testing.assert_close(whole, torch.stack(one_by_one))
    deeper = loss(margins.reshape(3, 4, -1), targets[3:4])
    torch.testing.assert_close(deeper, whole.reshape(3, 4))


@every_case
@pytest.mark.parametrize(
    ("targets", "mask"),
    [([0.4], [True]), ([0.1, 0.5, 0.9], [False] * 3), ([0.1, 0.5, 0.9], [False, True, False])],
    ids=["one image", "all masked", "one image left"],
)
def test_a_list_with_nothing_to_compare_costs_nothing(case, targets, mask):
    margins = torch.arange(1.0, 1 + len(targets), requires_grad=True)
    found = loss_of(case)(margins, torch.tensor(targets), torch.tensor(mask))
    assert found.shape == ()
    assert found == 0
    assert (torch.autograd.grad(found, margins)[0] == 0).all()


@pytest.mark.parametrize("case", sorted(set(CASES) - {"ranknet-soft", "fidelity-soft"}))
def test_a_list_that_is_one_tie_has_no_order_to_learn(case):
    margins = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    found = loss_of(case)(margins, torch.full((3,), 0.1))
    gradient = torch.autograd.grad(found, margins)[0]
    if case.startswith("listnet"):  # there a tie is a target: equal margins
        assert (gradient.sign() == torch.tensor([-1, -1, 1])).all()
    else:
        assert found == 0
        assert (gradient == 0).all()


@every_case
def test_inputs_are_left_as_they_were(case):
    given = random_lists(seed=17)
    before = [x.clone() for x in given]
    loss_of(case)(*given)
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))


def test_the_table_knows_the_hyper_parameters():
    assert {name: dict(loss.defaults) for name, loss in LOSSES.items()} == {
        "ranknet": {"temperature": 0.0, "confident": 0.0},
        "margin": {"margin": 1.0, "confident": 0.0},
        "fidelity": {"temperature": 0.0, "confident": 0.0},
        "listmle": {},
        "listnet": {"temperature": 0.1},
        "approx-ndcg": {"temperature": 1.0, "grades": 4.0},
        "soft-spearman": {"temperature": 1.0},
        "upl": {"top": 16},
        "plcc": {},
    }


@pytest.mark.parametrize(
    ("name", "hyper_parameters", "message"),
    [
        ("bpr", {}, "loss 'bpr' is none of ranknet, margin"),
        ("listmle", {"temperature": 1.0}, "'temperature': it takes none"),
        ("ranknet", {"top": 3}, "it takes temperature, confident"),
        ("ranknet", {"temperature": -1.0}, r"temperature \(-1.0\) must be .* at least 0"),
        ("ranknet", {"confident": 1.0}, r"quantile \(1.0\) must be at least 0 and below 1"),
        ("margin", {"margin": math.nan}, r"margin \(nan\) must be a finite number at least 0"),
        ("listnet", {"temperature": 0.0}, r"temperature \(0.0\) must be .* above 0"),
        ("approx-ndcg", {"grades": 0}, r"grades \(0\) must be .* above 0"),
        ("soft-spearman", {"temperature": math.inf}, r"temperature \(inf\)"),
        ("upl", {"top": 0}, r"top \(0\) must be .* at least 1"),
    ],
)
def test_make_loss_refuses(name, hyper_parameters, message):
    with pytest.raises(InputError, match=message):
        make_loss(name, **hyper_parameters)


def test_every_loss_is_compared_with_a_slow_loop():
    slow = [
        module.SLOW for module in (test_linear, test_listwise, test_pairwise, test_pseudo_labels)
    ]
    assert sorted(name for names in slow for name in names) == sorted(LOSSES)


# Losses of other packages.

OTHER_LOSSES = """
import torch

def hinge(margins, targets, mask=None, *, width=1.0):
    better = targets.unsqueeze(-1) > targets.unsqueeze(-2)
    if mask is not None:
        better = better & mask.unsqueeze(-1) & mask.unsqueeze(-2)
    differences = margins.unsqueeze(-1) - margins.unsqueeze(-2)
    return torch.where(better, torch.relu(width - differences), 0.0).sum(dim=(-2, -1))

def plain(margins, targets, mask=None):
    return (margins - targets).square().mean()

def shapeless(margins, targets, mask=None):
    return margins

def undefined_for_ties(margins, targets, mask=None):
    return (margins.sum() / targets.std()).abs()

def without_gradient(margins, targets, mask=None):
    return (margins.detach() - targets).mean()

def broken(margins, targets, mask=None):
    raise RuntimeError("no such kernel")

listmle = plain
"""
NAMES = (
    "hinge",
    "plain",
    "shapeless",
    "undefined_for_ties",
    "without_gradient",
    "broken",
    "listmle",
)


@pytest.fixture
def other_losses(tmp_path, monkeypatch):
    write_package(
        tmp_path, "other_losses", OTHER_LOSSES, gone="none", **{name: name for name in NAMES}
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("other_losses", None)


def test_a_loss_of_another_package_is_found_by_its_name(other_losses):
    entry = find_loss("hinge")
    assert (entry.kind, entry.package, dict(entry.defaults)) == (
        "external",
        "other_losses 1.2",
        {"width": 1.0},
    )
    margins, targets = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.1, 0.9]])
    assert make_loss("hinge")(margins, targets).tolist() == [1 - (1 - 2)]
    assert make_loss("hinge", width=3.0)(margins, targets).tolist() == [3 - (1 - 2)]
    assert make_loss("plain")(margins, targets).shape == ()
    assert loss_names() == [*LOSSES, *sorted({*NAMES, "gone"} - {"listmle"})]


def test_no_package_replaces_a_loss_of_this_one(other_losses):
    assert find_loss("listmle") is LOSSES["listmle"]


@pytest.mark.parametrize(
    ("name", "hyper_parameters", "message"),
    [
        ("hinges", {}, "loss 'hinges' is none of ranknet, .*, plcc, broken, gone, hinge, plain"),
        ("hinge", {"top": 3}, "loss hinge has no hyper-parameter 'top': it takes width"),
        (
            "shapeless",
            {},
            r"shape \(2, 3\) for margins of shape \(2, 3\), but must return one value",
        ),
        ("undefined_for_ties", {}, "is not finite for a list with equal targets"),
        ("without_gradient", {}, "'without_gradient' has no gradient"),
        (
            "broken",
            {},
            r"\(other_losses:broken of other_losses 1.2\) can't be used: RuntimeError: no such",
        ),
        ("gone", {}, r"loss 'gone' \(other_losses:none .*\) can't be used: AttributeError"),
    ],
)
def test_unusable_losses_of_other_packages(other_losses, name, hyper_parameters, message):
    with pytest.raises(InputError, match=message):
        make_loss(name, **hyper_parameters)
