"""Tests of iqa_core/releases/sources.py."""

from __future__ import annotations

import pytest

from iqa_core.errors import InputError
from iqa_core.releases.sources import has_csv_columns, read_csv
from iqa_core.storage.folder import Folder


def test_cells_have_no_spaces_around_and_empty_ones_are_empty_texts(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf name , mos\r\n a.jpg , 3\r\nb.jpg,\r\n\r\n")
    folder = Folder.of(str(tmp_path))
    assert read_csv(folder, "a.csv", ["name", "mos"]) == [
        {"name": "a.jpg", "mos": "3"},
        {"name": "b.jpg", "mos": ""},
    ]
    assert has_csv_columns(folder, "a.csv", ["mos"])
    assert not has_csv_columns(folder, "a.csv", ["dmos"])


def test_a_row_that_is_cut_short_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("name,prompt,mos\na.jpg,a cat,3\nb.jpg\n")
    with pytest.raises(InputError, match=r"line 3 of .*a\.csv has 1 of 3 cells"):
        read_csv(Folder.of(str(tmp_path)), "a.csv", ["mos"])
