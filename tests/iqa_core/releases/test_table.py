"""Tests of iqa_core/releases/table.py: a release of someone else's."""

from __future__ import annotations

from iqa_core.releases.read import read_release, recognise_release
from iqa_core.releases.release import Release, ReleaseRows
from iqa_core.releases.table import RELEASES


def test_a_release_from_outside_is_recognised_and_read(tmp_path, monkeypatch):
    def read(folder, labels):
        rows = ReleaseRows()
        for line in folder.read(labels[0]).decode().splitlines():
            name, stars = line.split()
            rows.add(name, float(stars))
        return rows

    mine = Release(title="Mine", labels=(("stars.txt",),), images=("",), scale=(1, 5), read=read)
    monkeypatch.setitem(RELEASES, "mine", mine)
    (tmp_path / "stars.txt").write_text("a.jpg 5\nb.jpg 2\n")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    assert recognise_release(str(tmp_path)) == "mine"
    table = read_release(str(tmp_path), "mine").table
    assert table["image_id"].to_pylist() == ["a.jpg", "b.jpg"]
    assert table["mos_normalised"].to_pylist() == [1.0, 0.25]
