"""Tests of iqa_core/storage/claim.py."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from iqa_core.storage.claim import Claim

A = Claim("a", None, ("x", 5), "digest")
B = Claim("b", ("x", 5), ("y", 0), "digest")
C = Claim("c", ("x", 9), None, "digest")


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [(A, B, False), (A, C, False), (B, C, True), (A, A, True), (Claim(), B, True)],
)
def test_half_open_ranges(one, other, overlap):
    assert one.overlaps(other) is other.overlaps(one) is overlap
    assert one.conflicts(other) is other.conflicts(one) is overlap


def test_rows_of_another_fingerprint_conflict_everywhere():
    foreign = Claim("f", ("z", 0), None, "another")
    assert not A.overlaps(foreign)
    assert A.conflicts(foreign)
    assert foreign.conflicts(A)
    assert not A.conflicts(Claim("f", ("z", 0), None, None))


@pytest.mark.parametrize("claim", [A, B, C, Claim()])
def test_a_claim_is_read_back(claim):
    document = asdict(claim)
    for key in ("first", "stop"):
        document[key] = document[key] and list(document[key])  # as JSON has tuples
    assert Claim.of(document) == claim


@pytest.mark.parametrize(
    "document", [None, [], "x", {}, {"name": "x"}, {"name": "x", "first": 1, "stop": 2}]
)
def test_what_states_no_claim_claims_everything(document):
    assert Claim.of(document) == Claim()
