"""Tests of jobs/training/conclude.py that need no Ray."""

from __future__ import annotations

from jobs.training.conclude import advice


def test_prompts_that_are_no_better_come_with_advice():
    assert "keep the fixed ones" in advice({"known order": (0.6, 0.6), "srcc ensemble": (1, 0.9)})
    assert not advice({"known order": (0.6, 0.7)})
    assert not advice({"srcc ensemble": (1.0, 0.9)})  # nothing is known without views
