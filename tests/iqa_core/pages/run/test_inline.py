"""Tests of iqa_core/pages/run/inline.py, on manifests written here."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import ImageError, Status
from iqa_core.pages.run import thumbnails
from iqa_core.pages.run.inline import NO_FOLDER, NO_IMAGE, read_inline
from tests.iqa_core.pages.run.runs import encoded, ok


def rows_of(*numbers, file="m.parquet"):
    return {i: {"manifest_file": file, "manifest_row": row} for i, row in enumerate(numbers)}


def read(rows, folder, max_bytes=1000, check_time=lambda: None):
    found = list(read_inline(rows, None if folder is None else str(folder), max_bytes, check_time))
    assert len(found) == len(rows)
    return dict(found)


def write(folder, images, **options):
    pq.write_table(pa.table({"image": images}), folder / "m.parquet", **options)


@pytest.mark.parametrize("as_struct", [True, False])
def test_wanted_rows_of_some_row_groups(tmp_path, as_struct):
    images = [f"image {i}".encode() for i in range(100)]
    write(
        tmp_path,
        [{"bytes": image, "path": None} for image in images] if as_struct else images,
        row_group_size=40,
    )
    found = read(rows_of(99, 3, 39, 3, 50), tmp_path)
    assert found == {0: images[99], 1: images[3], 2: images[39], 3: images[3], 4: images[50]}


def test_each_row_without_an_image_has_its_reason(tmp_path):
    write(tmp_path, [b"a", None, b"", b"b" * 1001], row_group_size=2)
    found = read(rows_of(0, 1, 2, 3, 4), tmp_path)
    assert found[0] == b"a"
    assert found[1] == found[2] == NO_IMAGE
    assert found[3] == "more than 1,000 bytes"
    assert "no such row" in found[4]
    assert "No such file" in read(rows_of(0, file="gone.parquet"), tmp_path)[0]
    assert read(rows_of(0), None) == {0: NO_FOLDER}
    pq.write_table(pa.table({"uri": ["a.jpg"]}), tmp_path / "m.parquet")
    assert read(rows_of(0), tmp_path) == {0: NO_IMAGE}


def test_damage_of_a_row_group_leaves_the_others(tmp_path):
    images = [bytes([i]) * 500 for i in range(3)]
    write(tmp_path, images, row_group_size=1, compression="none", use_dictionary=False)
    metadata = pq.read_metadata(tmp_path / "m.parquet")
    content = bytearray((tmp_path / "m.parquet").read_bytes())
    start = metadata.row_group(1).column(0).data_page_offset
    content[start : start + 30] = b"\xff" * 30
    (tmp_path / "m.parquet").write_bytes(content)
    found = read(rows_of(0, 1, 2), tmp_path)
    assert (found[0], found[2]) == (images[0], images[2])
    assert found[1].startswith("the manifest file can't be read (")


def test_nothing_is_read_after_the_deadline(tmp_path, monkeypatch):
    write(tmp_path, [b"a", b"b", b"c", b"d"], row_group_size=1)
    checks, groups = [], []
    read_batches = pq.ParquetFile.iter_batches

    def iter_batches(file, *args, row_groups, **options):
        groups.extend(row_groups)
        return read_batches(file, *args, row_groups=row_groups, **options)

    def check_time():
        checks.append(len(groups))
        if len(groups) == 2:
            raise ImageError(Status.TIMEOUT, "late")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    found = read(rows_of(0, 1, 2, 3), tmp_path, check_time=check_time)
    assert found == {0: b"a", 1: "late", 2: "late", 3: "late"}
    assert groups == [0, 1]


def test_images_of_a_large_row_group_are_shown(make, tmp_path, monkeypatch):
    image = encoded()
    write(tmp_path, [image] * 20, use_dictionary=False, compression="none")
    monkeypatch.setattr(thumbnails, "MAX_FILE_BYTES", len(image) + 1)
    facts, _ = make([ok(0, 0.1), ok(19, 0.9)])
    assert (facts.shown, facts.missing) == (2, 0)


def test_the_time_for_all_images_is_that_for_inline_ones_too(make, tmp_path, monkeypatch):
    write(tmp_path, [encoded()])
    monkeypatch.setattr(thumbnails, "_SECONDS", -1.0)
    read = []
    for name in ("read_row_group", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, name, lambda *_, **__: read.append(1))
    facts, _ = make([ok(0, 0.1)])
    assert (facts.shown, facts.missing) == (1, 1)
    assert "not read within" in facts.reason
    assert read == []
