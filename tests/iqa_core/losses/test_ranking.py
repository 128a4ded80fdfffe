"""Each loss against its formula, a slow loop, finite differences, and what it promises of masks."""

from __future__ import annotations

import math
from itertools import combinations
from math import exp, log, log2, sqrt

import pytest
import torch
from torch.autograd import gradcheck

from iqa_core.errors import InputError
from iqa_core.losses import ranking as losses
from iqa_core.losses.ranking import (
    LOSSES,
    confident_pairs,
    make_loss,
    pseudo_label_loss,
    pseudo_labels,
)

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


# Slow, obvious implementations: plain numbers of one list, no masks.


def slow_pairs(t, quantile=0.0, ties=False):
    pairs = list(combinations(range(len(t)), 2))
    if not pairs:
        return []
    smallest = sorted(abs(t[i] - t[j]) for i, j in pairs)[math.floor(quantile * len(pairs))]
    return [
        (i, j) if t[i] >= t[j] else (j, i)
        for i, j in pairs
        if (t[i] != t[j] and abs(t[i] - t[j]) >= smallest) or (ties and quantile == 0)
    ]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def slow_ranknet(m, t, temperature=0.0, confident=0.0):
    def one(i, j):
        p = sigmoid((t[i] - t[j]) / temperature) if temperature else 1.0
        q = sigmoid(m[i] - m[j])
        return -p * log(q) - (1 - p) * log(1 - q)

    return mean(one(i, j) for i, j in slow_pairs(t, confident, ties=temperature > 0))


def slow_margin(m, t, margin=1.0, confident=0.0):
    return mean(max(0.0, margin - (m[i] - m[j])) for i, j in slow_pairs(t, confident))


def slow_fidelity(m, t, temperature=0.0, confident=0.0):
    def one(i, j):
        p = sigmoid((t[i] - t[j]) / temperature) if temperature else 1.0
        q = sigmoid(m[i] - m[j])
        return 1 - sqrt(p * q) - sqrt((1 - p) * (1 - q))

    return mean(one(i, j) for i, j in slow_pairs(t, confident, ties=temperature > 0))


def slow_listmle(m, t):
    images = range(len(m))
    return mean(
        log(exp(m[i]) + sum(exp(m[k]) for k in images if t[k] < t[i])) - m[i] for i in images
    )


def slow_listnet(m, t, temperature=0.1):
    goal = [exp(x / temperature) for x in t]
    found = [exp(x) for x in m]
    return sum(-g / sum(goal) * log(f / sum(found)) for g, f in zip(goal, found, strict=True))


def slow_ranks(m, temperature):
    images = range(len(m))
    return [1 + sum(sigmoid((m[j] - m[i]) / temperature) for j in images if j != i) for i in images]


def slow_approx_ndcg(m, t, temperature=1.0, grades=4.0):
    if len(set(t)) < 2:
        return 0.0
    gains = [2 ** (grades * (x - min(t)) / (max(t) - min(t))) - 1 for x in t]
    found = sum(
        g / log2(1 + rank) for g, rank in zip(gains, slow_ranks(m, temperature), strict=True)
    )
    ideal = sum(g / log2(1 + place) for place, g in enumerate(sorted(gains)[::-1], start=1))
    return 1 - found / ideal


def slow_correlation(x, y):
    x = [value - mean(x) for value in x]
    y = [value - mean(y) for value in y]
    norms = sqrt(sum(a * a for a in x)) * sqrt(sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / norms


def slow_soft_spearman(m, t, temperature=1.0):
    if len(set(t)) < 2:
        return 0.0
    ranks = [mean([1 + sum(y > x for y in t), sum(y >= x for y in t)]) for x in t]
    return 1 - slow_correlation(slow_ranks(m, temperature), ranks)


def slow_upl(m, t, top=16):
    top = min(top, len(t) // 2)
    positive = {i for i, x in enumerate(t) if sum(y >= x for y in t) <= top}
    negative = {i for i, x in enumerate(t) if sum(y <= x for y in t) <= top}
    return mean(
        [-log(sigmoid(m[i])) for i in positive - negative]
        + [-log(sigmoid(-m[i])) for i in negative - positive]
    )


def slow_plcc(m, t):
    return 1 - slow_correlation(m, t) if len(set(t)) > 1 else 0.0


SLOW = {
    "ranknet": slow_ranknet,
    "margin": slow_margin,
    "fidelity": slow_fidelity,
    "listmle": slow_listmle,
    "listnet": slow_listnet,
    "approx-ndcg": slow_approx_ndcg,
    "soft-spearman": slow_soft_spearman,
    "upl": slow_upl,
    "plcc": slow_plcc,
}


@every_case
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_slow_loop_with_ties_and_masks(case, seed):
    name, hyper_parameters = CASES[case]
    margins, targets, mask = random_lists(seed)
    expected = [
        SLOW[name](m[keep].tolist(), t[keep].tolist(), **hyper_parameters)
        for m, t, keep in zip(margins, targets, mask, strict=True)
    ]
    found = loss_of(case)(margins, targets, mask)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )


# Expected values as formulas. Three images; the target order is 0 above 2 above 1.

M = [2.0, 1.0, -1.0]
T = [0.9, 0.1, 0.5]


def value(name, m=M, t=T, **hyper_parameters) -> float:
    lists = [torch.tensor(x, dtype=torch.float64) for x in (m, t)]
    return make_loss(name, **hyper_parameters)(*lists).item()


def test_ranknet_is_the_mean_log_of_pair_probabilities():
    expected = (log(1 + exp(-(2 - 1))) + log(1 + exp(-(2 + 1))) + log(1 + exp(-(-1 - 1)))) / 3
    assert value("ranknet") == pytest.approx(expected)


def test_ranknet_with_soft_labels_weighs_both_orders():
    p = 1 / (1 + exp(-(0.9 - 0.1) / 0.2))
    q = 1 / (1 + exp(-(2 - 1)))
    expected = -p * log(q) - (1 - p) * log(1 - q)
    assert value("ranknet", M[:2], T[:2], temperature=0.2) == pytest.approx(expected)
    tie = -0.5 * log(q) - 0.5 * log(1 - q)
    assert value("ranknet", M[:2], [0.5, 0.5], temperature=0.2) == pytest.approx(tie)


def test_margin_is_the_mean_hinge():
    assert value("margin") == pytest.approx(((1 - 1) + 0 + (1 + 2)) / 3)
    assert value("margin", margin=4.0) == pytest.approx(((4 - 1) + (4 - 3) + (4 + 2)) / 3)


def test_fidelity_is_one_minus_the_root_of_the_right_order():
    q = [1 / (1 + exp(-d)) for d in (1, 3, -2)]
    assert value("fidelity") == pytest.approx((3 - sqrt(q[0]) - sqrt(q[1]) - sqrt(q[2])) / 3)


def test_listmle_is_the_plackett_luce_likelihood():
    first = exp(2) / (exp(2) + exp(1) + exp(-1))
    second = exp(-1) / (exp(-1) + exp(1))
    assert value("listmle") == pytest.approx(-(log(first) + log(second)) / 3)


def test_listmle_lets_tied_images_win_against_those_below_only():
    expected = -(log(exp(2) / (exp(2) + exp(1))) + log(exp(-1) / (exp(-1) + exp(1)))) / 3
    assert value("listmle", t=[0.9, 0.1, 0.9]) == pytest.approx(expected)


def test_listnet_is_the_cross_entropy_of_two_softmaxes():
    goal = [exp(x / 0.5) / sum(exp(y / 0.5) for y in T) for x in T]
    logs = [x - log(sum(exp(y) for y in M)) for x in M]
    expected = -(goal[0] * logs[0] + goal[1] * logs[1] + goal[2] * logs[2])
    assert value("listnet", temperature=0.5) == pytest.approx(expected)


def test_approx_ndcg_of_exact_ranks_is_ndcg():
    best, middle = 2**4 - 1, 2**2 - 1
    expected = 1 - (best / log2(2) + middle / log2(4)) / (best / log2(2) + middle / log2(3))
    assert value("approx-ndcg", temperature=0.01) == pytest.approx(expected)


def test_soft_spearman_of_exact_ranks_is_one_minus_srcc():
    # Ranks 1 2 3 against 1 3 2: rho = 1 - 6 (0 + 1 + 1) / (3 (9 - 1)).
    expected = 1 - (1 - 6 * (0 + 1 + 1) / (3 * 8))
    assert value("soft-spearman", temperature=0.01) == pytest.approx(expected)


def test_upl_is_the_cross_entropy_of_the_surest_images():
    assert value("upl", top=1) == pytest.approx((log(1 + exp(-2)) + log(1 + exp(1))) / 2)


def test_plcc_is_one_minus_the_correlation():
    m = [2 - 2 / 3, 1 - 2 / 3, -1 - 2 / 3]
    t = [0.4, -0.4, 0.0]
    covariance = m[0] * t[0] + m[1] * t[1] + m[2] * t[2]
    expected = 1 - covariance / sqrt(m[0] ** 2 + m[1] ** 2 + m[2] ** 2) / sqrt(2 * 0.4**2)
    assert value("plcc") == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"listnet"}))
def test_the_right_order_costs_less_than_the_wrong_one(name):
    right = value(name, m=[8.0, -8.0, 0.0])
    wrong = value(name, m=[-8.0, 8.0, 0.0])
    assert right < 0.1 < wrong


@pytest.mark.parametrize("name", ["listmle", "ranknet", "fidelity", "margin", "soft-spearman"])
def test_only_the_order_of_the_targets_counts(name):
    assert value(name) == pytest.approx(value(name, t=[70.0, -3.0, 20.0]))


# What every loss promises.


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


@pytest.mark.parametrize("name", ["plcc", "soft-spearman"])
def test_equal_margins_are_uncorrelated_and_have_no_gradient(name):
    margins = torch.full((7,), 0.1, requires_grad=True)
    found = make_loss(name)(margins, torch.arange(7))
    assert found == 1
    assert (torch.autograd.grad(found, margins)[0] == 0).all()


@every_case
def test_inputs_are_left_as_they_were(case):
    given = random_lists(seed=17)
    before = [x.clone() for x in given]
    loss_of(case)(*given)
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))


# Confident pairs and pseudo-labels.


def test_confident_pairs_are_those_that_differ_most():
    # Differences: 0-1 1, 0-2 4, 0-3 9, 1-2 3, 1-3 8, 2-3 5.
    targets = torch.tensor([0.0, 1.0, 4.0, 9.0])

    def chosen(quantile):
        pairs = confident_pairs(targets, quantile=quantile)
        assert torch.equal(pairs, pairs.mT)
        return {tuple(pair) for pair in pairs.triu().nonzero().tolist()}

    assert chosen(0.0) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert chosen(0.3) == {(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert chosen(0.5) == {(0, 3), (1, 3), (2, 3)}
    assert chosen(0.99) == {(0, 3)}


def test_confident_pairs_leave_out_ties_and_masked_images():
    targets = torch.tensor([1.0, 1.0, 2.0, torch.nan])
    mask = torch.tensor([True, True, True, False])
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[[0, 1, 2, 2], [2, 2, 0, 1]] = True
    for quantile in (0.0, 0.5, 0.9):
        assert torch.equal(confident_pairs(targets, mask, quantile=quantile), expected)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.kind == "pairwise"])
def test_pairs_can_be_chosen(name):
    """Only image 1 against its degraded copy 2, say; given on one side of the diagonal or both."""
    pairs = torch.zeros(3, 3, dtype=torch.bool)
    pairs[2, 1] = True
    margins, targets = torch.tensor(M), torch.tensor(T)
    expected = make_loss(name)(margins[1:], targets[1:])
    for given in (pairs, pairs.mT, pairs | pairs.mT):
        found = LOSSES[name].function(margins, targets, None, given)
        torch.testing.assert_close(found, expected)
    assert LOSSES[name].function(margins, targets, None, ~(pairs | pairs.mT)) != expected


def test_pseudo_labels_are_the_extremes():
    targets = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.8])
    assert pseudo_labels(targets, top=1).tolist() == [-1, 1, 0, 0, 0]
    assert pseudo_labels(targets, top=2).tolist() == [-1, 1, 0, -1, 1]
    mask = torch.tensor([True, False, True, True, True])
    assert pseudo_labels(targets, mask, top=1).tolist() == [-1, 0, 0, 0, 1]


def test_pseudo_labels_take_at_most_half_and_cut_no_tie():
    assert pseudo_labels(torch.tensor([1.0, 2.0, 3.0]), top=2).tolist() == [-1, 0, 1]
    assert pseudo_labels(torch.tensor([1.0, 3.0, 3.0]), top=1).tolist() == [-1, 0, 0]
    assert pseudo_labels(torch.tensor([2.0, 2.0, 2.0]), top=1).tolist() == [0, 0, 0]


def test_pseudo_labels_of_a_data_set_train_any_of_its_lists():
    labels = torch.tensor([1, -1, 0])
    expected = (log(1 + exp(-2)) + log(1 + exp(1))) / 2
    assert pseudo_label_loss(torch.tensor(M), labels).item() == pytest.approx(expected)


# The table, and errors.


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


@pytest.mark.parametrize(
    ("margins", "targets", "mask", "message"),
    [
        (torch.zeros(()), torch.zeros(()), None, r"shape \(\), but must be \(..., L\)"),
        (torch.zeros(2, 0), torch.zeros(2, 0), None, "at least 1 image"),
        (torch.zeros(2, 3), torch.zeros(2, 4), None, r"targets have shape \(2, 4\)"),
        (torch.zeros(3), torch.zeros(2, 3), None, r"targets have shape \(2, 3\)"),
        (torch.zeros(3), torch.zeros(1), None, r"targets have shape \(1,\)"),
        (torch.zeros(3), torch.zeros(3), torch.ones(2) > 0, r"mask have shape \(2,\)"),
        (torch.zeros(3), torch.zeros(3), torch.ones(3), "write mask > 0"),
    ],
)
@every_case
def test_shapes_are_checked(case, margins, targets, mask, message):
    with pytest.raises(ValueError, match=message):
        loss_of(case)(margins, targets, mask)


def test_pairs_are_checked():
    with pytest.raises(ValueError, match=r"pairs have shape \(2, 2\).* must be \(..., 3, 3\)"):
        losses.ranknet(torch.zeros(3), torch.zeros(3), None, torch.ones(2, 2) > 0)
