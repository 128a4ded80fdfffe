"""Five runs of tools/chaos.py; `python -m tools.chaos --runs 30` does as many as one likes."""

from __future__ import annotations

import pytest

from tools.chaos import COMMIT_SECONDS, TARGETS, Chaos

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(1500)]


def test_every_row_survives_kills_of_each_kind(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    chaos = Chaos(tmp_path, rows=1500, seed=1)
    try:
        chaos.undisturbed()
        for number, target in enumerate((*TARGETS, "driver")):
            # Raises if a row is lost, there twice, or has another score.
            print(chaos.run(f"run{number}", (target, chaos.random.choice(TARGETS))))
    finally:
        chaos.close()
    # What a killed driver had finished and not committed: one interval, and the writing of a file.
    assert chaos.costs
    assert all(age < COMMIT_SECONDS + 2 for age, _ in chaos.costs)
