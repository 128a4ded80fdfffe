"""Tests of iqa_core/pages/run/page.py, on part files written here."""

from __future__ import annotations

import base64
import hashlib

import pyarrow as pa
import pytest

from iqa_core.errors import InputError
from iqa_core.pages.html import asset
from iqa_core.pages.run.page import write_report
from tests.iqa_core.pages.run.runs import failed, ok


def test_data_of_strangers_is_text_never_markup(make):
    evil = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>"
    rows = [
        ok(0, 0.5, evil, **{"kept": evil}),
        failed(1, evil, evil, evil, kept=evil),
    ]
    documents = {"config": {evil: evil}, "summary": {evil: [evil], "stage_seconds": {evil: 1.0}}}
    _, page = make(rows, [("kept", pa.string())], documents, title=evil)
    assert page.find("script") == [{"type": "application/json", "id": "data"}, {}]
    own = [asset(f"templates/{name}.js") for name in ("browse", "threshold")]
    assert page.scripts[1:] == ["\n".join(own)]
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


def test_wrong_use_is_one_line_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match=r"holds no part-\*\.parquet: give the output"):
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


def test_a_page_in_memory_filesystem(make, tmp_path):
    import fsspec

    make([ok(0, 0.5, "a.jpg")])
    facts = write_report(str(tmp_path / "scores"), "memory://pages/report.html")
    memory = fsspec.filesystem("memory")
    try:
        assert len(memory.cat_file("/pages/report.html")) == facts.size
    finally:
        memory.rm("/pages", recursive=True)
    with pytest.raises(InputError, match=r"output nope://a can't be opened: Protocol"):
        write_report(str(tmp_path / "scores"), "nope://a/r.html")
    with pytest.raises(InputError, match=r"scores nope://a can't be opened: Protocol"):
        write_report("nope://a", str(tmp_path / "r.html"))
