"""Tests of iqa_core/pages/run/thumbnails.py, on part files written here."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.fetch.fetcher import Fetcher
from iqa_core.pages.run import thumbnails
from iqa_core.pages.run.page import write_report
from tests.iqa_core.pages.run.runs import PAIRS, SCHEMA, encoded, ok


def test_shows_each_image_of_a_small_run_with_relative_and_absolute_uris(make, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(encoded())
    (tmp_path / "b.jpg").write_bytes(encoded("blue", (400, 800)))
    (tmp_path / "m.parquet").touch()
    rows = [
        ok(0, 0.25, "images/a.jpg", width=40, height=20),
        ok(1, 0.75, str(tmp_path / "b.jpg"), width=400, height=800),
    ]
    facts, page = make(rows)
    assert (facts.rows, facts.scored, facts.failed, facts.shown, facts.missing) == (2, 2, 0, 2, 0)
    sizes = {(image["width"], image["height"]) for image in page.find("img")}
    assert sizes == {("40", "20"), ("80", "160")}  # never enlarged
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.find("img"))
    assert "a.jpg, score 0.250" in {image["alt"] for image in page.find("img")}


def test_reads_inline_images_from_the_manifest(make, tmp_path):
    struct = [{"bytes": encoded(c), "path": None} for c in ("red", "green", "blue")]
    table = pa.table({"image": struct})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=2)
    facts, page = make([ok(0, 0.1), ok(2, 0.9)])
    assert (facts.shown, facts.missing) == (2, 0)
    assert "m.parquet row 2, score 0.900" in {image["alt"] for image in page.find("img")}


def test_manifest_option_replaces_the_one_of_the_plan(make, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "a.jpg").write_bytes(encoded())
    facts, _ = make([ok(0, 0.5, "a.jpg")], manifest=str(moved))
    assert facts.missing == 0


def test_thumbnail_that_cannot_be_made_becomes_a_placeholder(make, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    rows = [ok(0, 0.1, "text.jpg"), ok(1, 0.2, "gone.jpg"), ok(2, 0.3), ok(3, 0.4, "nope://x/y")]
    facts, page = make(rows)
    assert (facts.shown, facts.missing) == (4, 4)
    assert "no preview of gone.jpg" in page.text


def test_large_run_opens_only_the_images_shown(tmp_path, monkeypatch):
    count = 200_000
    values = np.random.default_rng(0).random(count, dtype=np.float32)
    pairs = pa.StructArray.from_arrays([pa.array(values)] * 2, fields=list(PAIRS))
    text = pa.array([f"images/{i}.jpg" for i in range(count)])
    columns = {
        "manifest_file": pa.array(["m.parquet"]).take(pa.array(np.zeros(count, np.int64))),
        "manifest_row": pa.array(np.arange(count)),
        "image_id": pa.nulls(count, pa.string()),
        "uri": text,
        "status": pa.array(["ok"]).take(pa.array(np.zeros(count, np.int64))),
        "error": pa.nulls(count, pa.string()),
        "score": pa.array(values),
        "scores": pairs,
        "margins": pairs,
        "width": pa.nulls(count, pa.int32()),
        "height": pa.nulls(count, pa.int32()),
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), tmp_path / "part-0.parquet")
    opened = []
    monkeypatch.setattr(Fetcher, "fetch", lambda _, uri: opened.append(uri) or encoded())
    facts = write_report(str(tmp_path), str(tmp_path / "r.html"), manifest=str(tmp_path))
    assert facts.rows == count
    assert len(opened) == facts.shown == facts.listed == 500
    assert len(set(opened)) == 500  # each once, though some are shown in several places
    assert f"images/{int(values.argmax())}.jpg" in opened


def test_images_of_a_tar_shard_are_read_in_place(make, tmp_path):
    content = encoded("green")
    (tmp_path / "shard.tar").write_bytes(b"x" * 512 + content + b"y" * 512)
    uri = f"{tmp_path}/shard.tar#bytes=512-{511 + len(content)}"
    facts, _ = make([ok(0, 0.5, uri)])
    assert (facts.shown, facts.missing) == (1, 0)


def test_a_private_network_is_not_reached_for_a_thumbnail(make):
    facts, _ = make([ok(0, 0.5, "http://127.0.0.1:9/a.jpg")])
    assert facts.missing == 1
    assert "127.0.0.1" in facts.reason


def test_a_store_that_hangs_does_not_keep_the_page_from_being_made(make, tmp_path, monkeypatch):
    monkeypatch.setattr(thumbnails, "_SECONDS", -1.0)  # all time is used up
    (tmp_path / "a.jpg").write_bytes(encoded())
    facts, page = make([ok(0, 0.5, "a.jpg")])
    assert (facts.shown, facts.missing) == (1, 1)
    assert "not read within" in facts.reason
    assert "no preview of a.jpg" in page.text


def test_a_glob_as_manifest(make, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(encoded())
    facts, _ = make([ok(0, 0.5, "a.jpg")], manifest=str(tmp_path / "data" / "*.parquet"))
    assert facts.missing == 0
