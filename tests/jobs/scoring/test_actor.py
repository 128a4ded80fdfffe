"""Tests of jobs/scoring/actor.py; its behaviour in a real actor is tested in test_dataset.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_an_actor_imports_no_text_tower():
    code = "import jobs.scoring.actor, sys; print('iqa_core.clip.text_tower' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "False"
