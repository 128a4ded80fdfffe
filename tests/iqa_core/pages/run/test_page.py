"""Tests of iqa_core/pages/run/page.py, on part files written here."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.errors import InputError
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.pages.html import asset
from iqa_core.pages.run import thumbnails
from iqa_core.pages.run.layout import choose_images
from iqa_core.pages.run.page import write_report
from iqa_core.pages.text import NONE

PAIRS = pa.struct([("quality", pa.float32()), ("noise", pa.float32())])
SCHEMA = pa.schema(
    [
        ("manifest_file", pa.string()),
        ("manifest_row", pa.int64()),
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("score", pa.float32()),
        ("scores", PAIRS),
        ("margins", PAIRS),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
VOID = {"meta", "br", "img"}  # SVG tags close themselves


def ok(row, score, uri=None, **more):
    pairs = {"quality": score, "noise": score}
    return {
        "manifest_file": "m.parquet",
        "manifest_row": row,
        "uri": uri,
        "status": "ok",
        "score": score,
        "scores": pairs,
        "margins": pairs,
        **more,
    }


def failed(row, uri="gone.jpg", status="not_found", error="no such file", **more):
    place = {"manifest_file": "m.parquet", "manifest_row": row}
    return {**place, "uri": uri, "status": status, "error": error, **more}


def encoded(color="red", size=(40, 20)):
    buffer = BytesIO()
    Image.new("RGB", size, color).save(buffer, "JPEG")
    return buffer.getvalue()


class Page(HTMLParser):
    """Checks that tags nest, and collects them and the text."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.text, self.stack, self.scripts = [], "", [], []
        self.feed(content)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack[-1:] == ["script"]:
            self.scripts.append(data)
        else:
            self.text += data

    def table(self):
        """The rows to sort and filter, as the page's script gets them."""
        return json.loads(self.scripts[0])

    def column(self, label):
        place = [one["label"] for one in self.table()["columns"]].index(label)
        return [row[place] for row in self.table()["rows"]]

    def find(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def make(tmp_path):
    """Write a run of two part files and return its report's facts and page."""

    def run(given, extra=(), documents=None, **options):
        scores = tmp_path / "scores"
        (scores / "_run").mkdir(parents=True)
        table = pa.Table.from_pylist(given, pa.schema([*SCHEMA, *extra]))
        half = len(table) // 2
        pq.write_table(table[:half], scores / "part-0.parquet")
        pq.write_table(table[half:], scores / "part-1.parquet")
        documents = {"plan": {"manifest": str(tmp_path / "m.parquet")}, **(documents or {})}
        for name, document in documents.items():
            (scores / "_run" / f"{name}.json").write_text(json.dumps(document))
        output = tmp_path / "report.html"
        facts = write_report(str(scores), str(output), **options)
        assert facts.size == output.stat().st_size
        assert not list(tmp_path.glob(".report*"))
        return facts, Page(output.read_text(encoding="utf-8"))

    return run


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


def test_data_of_strangers_is_text_never_markup(make):
    evil = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>"
    rows = [
        ok(0, 0.5, evil, **{"kept": evil}),
        failed(1, evil, evil, evil, kept=evil),
    ]
    documents = {"config": {evil: evil}, "summary": {evil: [evil], "stage_seconds": {evil: 1.0}}}
    _, page = make(rows, [("kept", pa.string())], documents, title=evil)
    assert page.find("script") == [{"type": "application/json", "id": "data"}, {}]
    assert page.scripts[1:] == [asset("templates/browse.js")]
    assert set(page.column("Image")) == {evil}
    assert page.find("img") == []
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "alert(1)" in page.text


def test_page_asks_for_nothing_outside(make):
    _, page = make([ok(0, 0.5, "https://example.invalid/a.jpg"), failed(1)], thumbnails=0)
    assert page.find("link") == []
    assert all("src" not in script for script in page.find("script"))
    assert all(link["href"].startswith("#") for link in page.find("a"))
    policy = next(meta["content"] for meta in page.find("meta") if "http-equiv" in meta)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_passwords_and_signatures_stay_out(make, tmp_path):
    uri = "https://user:secret@host/a.jpg?X-Amz-Signature=secret"
    make([ok(0, 0.5, "x.jpg"), failed(1, uri, error=f"GET {uri} failed")])
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "secret" not in content
    assert "https://…@host/a.jpg?…" in content


def test_no_scored_row(make):
    facts, page = make([failed(0), failed(1)])
    assert (facts.scored, facts.failed, facts.shown) == (0, 2, 0)
    assert "No row has a score" in page.text
    assert page.find("svg") == []


def test_one_row(make):
    facts, page = make([ok(0, 0.5, "a.jpg")])
    assert facts.rows == facts.shown == 1
    assert "None: every row has a score." in page.text


def test_no_row(make):
    facts, page = make([])
    assert facts.rows == 0
    assert "The run has no rows." in page.text


def test_missing_run_files_leave_facts_unknown(make):
    _, page = make([ok(0, 0.5, "a.jpg")], documents={"plan": [], "config": 3})
    assert "may not be finished" in page.text
    assert "Options: unknown" in page.text


def test_run_facts_and_bottleneck(make):
    summary = {
        "images_per_second": 41.82,
        "stage_seconds": {"fetch": 1.0, "model": 3.0},
        "bottleneck": "model",
        "machine": {"cpus": 2},
    }
    config = {"model": "tiny", "pairs": "quality", "keep": ["a", "b"], "embeddings": False}
    _, page = make([ok(0, 0.5)], documents={"summary": summary, "config": config})
    for text in ("41.82", "quality (2)", "model bottleneck", "75%", "machine: cpus", "a, b"):
        assert text in page.text


def test_failures_by_kind_with_three_examples(make):
    rows = [failed(i, f"gone{i}.jpg") for i in range(5)] + [failed(5, "t.jpg", "timeout", None)]
    _, page = make([*rows, ok(6, 0.5)])
    assert "6 of 7 rows without a score" in page.text
    assert "gone2.jpg" in page.text
    assert "gone3.jpg" not in page.text
    assert "no message" in page.text


def test_kept_columns(make):
    rows = [
        ok(i, 0.9 - 0.1 * level, distortion=kind, level=level, photo=f"p{i}", flag=True)
        for i, (kind, level) in enumerate((k, lv) for k in ("blur", "dark") for lv in range(1, 6))
    ]
    rows += [ok(10 + i, 0.9, distortion=None, level=0, photo=f"q{i}", flag=None) for i in range(25)]
    names = [("distortion", pa.string()), ("level", pa.int16())]
    _, page = make(rows, [*names, ("photo", pa.string()), ("flag", pa.bool_())])
    assert "blur5\N{MINUS SIGN}1.000" in page.text  # images, then the correlation
    assert "Score by distortion" in page.text
    assert "(null)25" in page.text
    assert "Column photo: 35 values, each in one row" in page.text
    assert "true10" in page.text


def test_histogram_counts_every_scored_row(make):
    values = np.random.default_rng(0).uniform(0.2, 0.6, 500)
    _, page = make([ok(i, float(v)) for i, v in enumerate(values)], thumbnails=0)
    bars = [int(n) for n in re.findall(r": (\d+) image", page.text)]
    assert sum(bars) == 3 * 500  # overall and two pairs


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, 1e-7])
def test_histogram_of_equal_scores(make, value):
    facts, page = make([ok(i, value) for i in range(3)], thumbnails=0)
    assert facts.scored == 3
    assert ": 3 images" in page.text


def test_contact_sheet_takes_each_decile_from_worst_to_best():
    score = np.append(np.linspace(1, 0, 1000), np.nan)
    layout = choose_images(score, 60)
    assert layout.worst == list(range(999, 987, -1))
    assert layout.best == list(range(12))
    assert [(strip.count, len(strip.rows)) for strip in layout.strips] == [(100, 6)] * 10
    assert layout.strips[0].rows[0] == 999
    assert layout.strips[-1].rows[-1] == 0


@pytest.mark.parametrize("thumbnails", [0, 1, 3, 9, 10, 25])
def test_contact_sheet_keeps_to_the_number_of_thumbnails(thumbnails):
    layout = choose_images(np.linspace(0, 1, 100), thumbnails)
    assert sum(len(strip.rows) for strip in layout.strips) <= thumbnails
    assert len(layout.best) == len(layout.worst) <= -(-thumbnails // 5)


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


def test_images_that_the_pairs_dispute_name_the_pairs(make):
    rows = [ok(i, i / 20, f"{i}.jpg") for i in range(20)]
    rows[19]["scores"] = {"quality": 0.95, "noise": 0.001}
    _, page = make(rows)
    assert "Most disputed between the pairs" in page.text
    assert "quality: above 100% of the images, noise: 5%" in page.text


def test_pairs_that_agree_have_no_disputed_images(make):
    facts, page = make([ok(i, i / 20) for i in range(20)])
    assert "disputed" not in page.text.lower()
    assert facts.shown == 20


def another(folder, rows):
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "part-0.parquet")
    return str(folder)


def test_drift_against_another_run(make, tmp_path):
    evil = "<b>.jpg"
    uris = [f"{i}.jpg" for i in range(9)] + [evil]
    there = [ok(i, (9 - i if i in (0, 9) else i) / 20, uri) for i, uri in enumerate(uris)]
    there[4] = failed(4, "4.jpg", "timeout")
    there.append(ok(10, 0.7, "only-there.jpg"))
    other = another(tmp_path / "other", there[::-1])
    _, page = make([ok(i, i / 20 + 0.4, uri) for i, uri in enumerate(uris)], compare=other)
    for text in (
        "Rows in both, by their uri10",
        "Rows only here, only there0, 1",
        "Scored in both9",
        "Moved by more than a tenth of the ranks2 (22.2%)",
        "oktimeout1",
        "above 100% of the images here, 0% there (0.000)",
        "above 0% of the images here, 100% there (0.450)",
    ):
        assert text in page.text
    assert page.find("b") == [{}] * len(page.find("b"))


def test_a_run_against_itself_has_no_disputed_images(make, tmp_path):
    rows = [ok(i, i / 20, f"{i}.jpg") for i in range(5)]
    _, page = make(rows, compare=another(tmp_path / "other", rows))
    assert "Rank correlation (SRCC) of the two1.000" in page.text
    assert "Better here than there" not in page.text
    assert "Largest gap of the two cumulative distributions0.000" in page.text


def test_the_gap_of_the_two_distributions_is_on_the_page(make, tmp_path):
    rng = np.random.default_rng(0)
    first, second = rng.random(50).round(1), (0.2 + 0.8 * rng.random(70)).round(1)
    other = another(tmp_path / "other", [ok(i, s, f"{i}.jpg") for i, s in enumerate(second)])
    _, page = make([ok(i, s, f"{i}.jpg") for i, s in enumerate(first)], compare=other)
    # the cumulative shares right after each value that there is
    gap = max(abs((first <= x).mean() - (second <= x).mean()) for x in {*first, *second})
    assert gap > 0.1
    assert f"Largest gap of the two cumulative distributions{gap:.3f}" in page.text


def test_runs_without_a_common_score(make, tmp_path):
    other = another(tmp_path / "other", [failed(0, "a.jpg"), ok(1, 0.5, "b.jpg")])
    _, page = make([ok(0, 0.5, "a.jpg")], compare=other)
    assert f"Scored in both0Rank correlation (SRCC) of the two{NONE}" in page.text
    with pytest.raises(InputError, match=r"--compare .*gone holds no part-\*\.parquet"):
        write_report(str(tmp_path / "scores"), str(tmp_path / "r.html"), compare="gone")


def test_wrong_use_is_one_line_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match=r"holds no part-\*\.parquet: give the --output"):
        write_report(str(tmp_path), str(tmp_path / "r.html"))
    with pytest.raises(InputError, match=r"holds no part"):
        write_report(str(tmp_path / "absent"), str(tmp_path / "r.html"))
    with pytest.raises(InputError, match="does not exist: create it first"):
        write_report(str(tmp_path), str(tmp_path / "absent" / "r.html"))
    with pytest.raises(InputError, match="is a folder"):
        write_report(str(tmp_path), str(tmp_path))
    with pytest.raises(InputError, match="must be at least 0"):
        write_report(str(tmp_path), str(tmp_path / "r.html"), thumbnails=-1)
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_part_files(tmp_path):
    (tmp_path / "part-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="can't be read"):
        write_report(str(tmp_path), str(tmp_path / "r.html"))
    pq.write_table(pa.table({"uri": ["a"]}), tmp_path / "part-0.parquet")
    with pytest.raises(InputError, match="without the column 'manifest_file'"):
        write_report(str(tmp_path), str(tmp_path / "r.html"))


# Samples, other sources, the table ------------------------------------------------------------------


def many(count=3000):
    """Rows of which the best, the worst and the only failure are known."""
    rng = np.random.default_rng(7)
    rows = [ok(i, float(s), f"{i}.jpg") for i, s in enumerate(rng.uniform(0.3, 0.7, count))]
    rows[1234] = ok(1234, 0.01, "worst.jpg")
    rows[2345] = ok(2345, 0.99, "best.jpg")
    rows[1500] = failed(1500, "only-failure.jpg", "timeout")
    return rows


def test_a_sample_counts_all_rows_and_never_misses_the_extremes(make, tmp_path):
    facts, page = make(many(), sample=200, rows=60)
    assert (facts.rows, facts.scored, facts.failed, facts.listed) == (3000, 2999, 1, 60)
    held = int(re.search(r"are of (\d+) of the run's 3,000 rows", page.text)[1])
    assert 200 < held <= 301  # the sample, 50 at each end, the failure
    names = page.column("Image")
    assert names[0] == "worst.jpg"
    assert names[-2:] == ["best.jpg", "only-failure.jpg"]
    assert "1 of 3,000 rows without a score" in page.text
    bars = [int(n) for n in re.findall(r": (\d+) image", page.text)]
    assert sum(bars) == 3 * (held - 1)
    # a random sample: what it says of the middle is near what all rows say
    mean = float(re.search(r"Score, mean over the pairs mean ([\d.]+)", page.text)[1])
    assert mean == pytest.approx(0.5, abs=0.03)


def test_a_sample_is_compared_with_the_same_rows_of_another_run(make, tmp_path):
    there = many()
    for row in there:
        if row["status"] == "ok":
            row["score"] = 1 - row["score"]
    other = another(tmp_path / "other", there[::-1])
    _, page = make(many(), sample=200, compare=other)
    held = int(re.search(r"are of (\d+) of the run's", page.text)[1])
    assert f"Rows in both, by their uri{held}" in page.text
    assert "Rank correlation (SRCC) of the two\N{MINUS SIGN}1.000" in page.text


def test_no_sample_is_taken_of_fewer_rows(make):
    _, page = make(many(), sample=3000)
    assert "drawn at random" not in page.text


def test_the_table_has_what_is_shown_failures_of_each_kind_and_an_even_rest(make):
    rows = [ok(i, i / 1000, f"{i}.jpg", kind=None, level=i) for i in range(1000)]
    rows += [failed(1000 + i, f"t{i}.jpg", "timeout") for i in range(500)]
    rows += [failed(1500, "rare.jpg", "empty")]
    _, page = make(rows, [("kind", pa.string()), ("level", pa.int64())], rows=100)
    statuses = page.column("Status")
    assert len(statuses) == 100
    assert statuses.count("timeout") == 19
    assert statuses.count("empty") == 1
    scores = [score for score in page.column("Score") if score is not None]
    assert scores == sorted(scores)
    assert {0.0, 0.999} <= set(scores)
    assert page.column("level")[0] == 0
    labels = [column["label"] for column in page.table()["columns"]]
    assert labels[:4] == ["Score", "Image", "Status", "Dispute of the pairs"]
    assert labels[4:8] == ["kind", "level", "quality", "noise"]


def test_no_table_needs_no_script(make):
    facts, page = make([ok(0, 0.5, "a.jpg")], rows=0)
    assert facts.listed == 0
    assert page.scripts == []
    assert "Sort and filter" not in page.text


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


def test_a_page_in_memory_filesystem(make, tmp_path):
    import fsspec

    make([ok(0, 0.5, "a.jpg")])
    facts = write_report(str(tmp_path / "scores"), "memory://pages/report.html")
    memory = fsspec.filesystem("memory")
    try:
        assert len(memory.cat_file("/pages/report.html")) == facts.size
    finally:
        memory.rm("/pages", recursive=True)
    with pytest.raises(InputError, match=r"--output nope://a can't be opened: Protocol"):
        write_report(str(tmp_path / "scores"), "nope://a/r.html")
    with pytest.raises(InputError, match=r"--scores nope://a can't be opened: Protocol"):
        write_report("nope://a", str(tmp_path / "r.html"))


def test_frequent_values_of_a_column_with_many(make):
    rows = [ok(i, i / 100, f"{i}.jpg", camera=f"c{min(i, 40)}") for i in range(100)]
    _, page = make(rows, [("camera", pa.string())])
    assert "Score by camera: the 30 most frequent of 41 values" in page.text
    assert "c4060" in page.text  # the value, and its images


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1e-9 * i for i in range(50)], "mean 2.45e\N{MINUS SIGN}08"),
        ([3] * 50, "mean 3, median 3"),
        ([i * 1e6 for i in range(50)], "mean 2.45e+07"),
        ([None] * 49 + [2.5], "mean 2.5, median 2.5"),
    ],
    ids=["tiny", "constant", "huge", "one"],
)
def test_distributions_of_numeric_columns(make, values, text):
    rows = [ok(i, i / 50, f"{i}.jpg", size=v) for i, v in enumerate(values)]
    _, page = make(rows, [("size", pa.float64())], thumbnails=0)
    assert "Distributions of the numeric columns" in page.text
    assert text in page.text
