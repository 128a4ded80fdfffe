"""Runs for reports, and the reading of pages."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

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


VOID = {"meta", "br", "img", "input"}  # SVG tags close themselves


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


def another(folder, rows):
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "part-0.parquet")
    return str(folder)


def many(count=3000):
    """Rows of which the best, the worst and the only failure are known."""
    rng = np.random.default_rng(7)
    rows = [ok(i, float(s), f"{i}.jpg") for i, s in enumerate(rng.uniform(0.3, 0.7, count))]
    rows[1234] = ok(1234, 0.01, "worst.jpg")
    rows[2345] = ok(2345, 0.99, "best.jpg")
    rows[1500] = failed(1500, "only-failure.jpg", "timeout")
    return rows
