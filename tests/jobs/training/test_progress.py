"""Tests of jobs/training/progress.py: what a person sees of the file that the first worker writes."""

from __future__ import annotations

from iqa_core.storage.folder import Folder
from jobs.training.progress import show_progress
from jobs.training.run_folder import PROGRESS


def test_the_last_check_is_printed_once(tmp_path, capsys):
    folder = Folder.of(str(tmp_path))
    record = {"step": 1500, "loss": None, "agreement": 0.25}
    with show_progress(folder, 2000, lambda: None):
        folder.write_json(PROGRESS, record)
    assert capsys.readouterr().err == (
        "step 1,500 of 2,000, loss none, held-out agreement 0.2500\n"
    )


def test_a_file_that_is_missing_or_cut_short_prints_nothing(tmp_path, capsys):
    folder = Folder.of(str(tmp_path))
    with show_progress(folder, 10, lambda: None):
        pass
    with show_progress(folder, 10, lambda: None):
        folder.write(PROGRESS, b'{"step": 1')
    assert capsys.readouterr().err == ""
