"""Tests of jobs/training/conclude.py that need no Ray: what is said about the decision."""

from __future__ import annotations

from types import SimpleNamespace

from iqa_core.training.safety import Finding
from jobs.training.conclude import _sentences


def outcome(**options):
    given = {"is_better": False, "reason": "because", "findings": [], "doubt": ""}
    return SimpleNamespace(**{**given, **options})


def test_what_is_written_and_why():
    assert _sentences(outcome(), False, True) == [
        "Keep the fixed prompts; they are written: because."
    ]
    assert _sentences(outcome(is_better=True), True, True) == [
        "The learned prompts are written: because."
    ]
    assert _sentences(outcome(), True, True) == [
        "The learned prompts are written: that was asked for, but because."
    ]


def test_findings_are_said_once():
    found = [Finding("flown", "a context flew away"), Finding("inverted", "pair x", False)]
    said = _sentences(
        outcome(reason="a context flew away", findings=found, doubt="no words"), False, True
    )
    assert said == [
        "Keep the fixed prompts; they are written: a context flew away.",
        "Pair x.",
        "No words.",
    ]
