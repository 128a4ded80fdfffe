"""Tests of iqa_core/tables/manifest.py on real Parquet files."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyroaring import BitMap

from iqa_core.errors import InputError
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_reading import read_slice
from iqa_core.tables.rows import RowSet
from iqa_core.tables.slices import plan_slices


def write(path, /, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    row_group_size = columns.pop("row_group_size", None)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def rows_of(file, numbers):
    return pa.table({"manifest_file": [file] * len(numbers), "manifest_row": pa.array(numbers)})


def read_all(manifest, done=None, keep=(), batch_rows=3):
    tables = [
        table
        for unit in plan_slices(manifest, done or RowSet())
        for table in read_slice(manifest.folder, unit, keep, manifest.image_id_type, batch_rows)
    ]
    return pa.concat_tables(tables).to_pylist()


class TestOpening:
    def test_a_folder_a_glob_and_a_file(self, tmp_path):
        write(tmp_path / "m/a.parquet", uri=["1", "2"])
        write(tmp_path / "m/deep/b.parquet", uri=["3"])
        write(tmp_path / "m/_run/c.parquet", uri=["4"])
        (tmp_path / "m/readme.txt").write_text("no manifest")
        manifest = open_manifest(str(tmp_path / "m"))
        assert [(file.name, file.rows) for file in manifest.files] == [
            ("a.parquet", 2),
            ("deep/b.parquet", 1),
        ]
        assert manifest.rows == 3
        assert open_manifest(str(tmp_path / "m/a.parquet")).rows == 2
        assert open_manifest(str(tmp_path / "m/*.parquet")).rows == 2

    def test_identity_is_the_same_on_other_filesystems(self, tmp_path):
        import fsspec

        write(tmp_path / "a.parquet", uri=["x"])
        memory = fsspec.filesystem("memory")
        memory.pipe_file("/opened/a.parquet", (tmp_path / "a.parquet").read_bytes())
        manifest = open_manifest("memory://opened")
        assert [file.name for file in manifest.files] == ["a.parquet"]
        assert read_all(manifest)[0]["uri"] == "x"

    @pytest.mark.parametrize(
        ("columns", "text"),
        [
            ({"path": ["a"]}, "has the columns path, but needs a uri column"),
            ({"uri": [1]}, "column uri of .* is int64, but must be a string"),
            ({"image": ["a.jpg"]}, "column image of .* is string, but must be binary or struct"),
        ],
    )
    def test_columns_that_do_not_fit(self, columns, text, tmp_path):
        write(tmp_path / "m.parquet", **columns)
        with pytest.raises(InputError, match=text):
            open_manifest(str(tmp_path / "m.parquet"))

    def test_files_that_are_no_parquet(self, tmp_path):
        (tmp_path / "m.parquet").write_text("uri\na.jpg\n")
        with pytest.raises(InputError, match="is not a readable Parquet file"):
            open_manifest(str(tmp_path / "m.parquet"))
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=r"holds no \*\.parquet file"):
            open_manifest(str(tmp_path / "empty"))

    def test_files_of_unequal_types(self, tmp_path):
        write(tmp_path / "a.parquet", uri=["1"], image_id=[1])
        write(tmp_path / "b.parquet", uri=["2"], image_id=["x"])
        with pytest.raises(
            InputError, match=r"column 'image_id' is string in b\.parquet but int64"
        ):
            open_manifest(str(tmp_path))


class TestReading:
    def test_every_row_once_with_its_place(self, tmp_path):
        write(tmp_path / "a.parquet", uri=[str(n) for n in range(10)], row_group_size=4)
        rows = read_all(open_manifest(str(tmp_path)))
        assert [(row["manifest_row"], row["uri"]) for row in rows] == [
            (n, str(n)) for n in range(10)
        ]

    def test_only_what_is_not_done(self, tmp_path):
        write(tmp_path / "a.parquet", uri=[str(n) for n in range(10)], row_group_size=4)
        done = RowSet()
        done.add(rows_of("a.parquet", [0, 1, 2, 3, 5, 9]))
        manifest = open_manifest(str(tmp_path))
        assert [row["uri"] for row in read_all(manifest, done)] == ["4", "6", "7", "8"]
        (unit,) = plan_slices(
            manifest, done
        )  # of several row groups, whose done rows are not wanted
        assert (unit.group, unit.stop_group) == (0, 3)
        assert list(BitMap.deserialize(unit.wanted)) == [4, 6, 7, 8]

    def test_image_bytes(self, tmp_path):
        write(tmp_path / "a.parquet", image=[b"one", None], image_id=[7, 8], mos=[1.5, 2.5])
        rows = read_all(open_manifest(str(tmp_path), ["mos"]), keep=["mos"])
        assert [row["_data"] for row in rows] == [b"one", None]
        assert [row["image_id"] for row in rows] == [7, 8]
        assert [row["mos"] for row in rows] == [1.5, 2.5]
        assert [row["uri"] for row in rows] == [None, None]

    def test_image_structs_as_datasets_writes_them(self, tmp_path):
        images = [
            {"bytes": b"one", "path": "one.jpg"},
            {"bytes": None, "path": "two.jpg"},
            None,
        ]
        write(tmp_path / "a.parquet", image=images)
        rows = read_all(open_manifest(str(tmp_path)))
        assert [(row["_data"], row["uri"]) for row in rows] == [
            (b"one", None),
            (None, "two.jpg"),
            (None, None),
        ]


class _Server(SimpleHTTPRequestHandler):
    """Serves a folder; with a query that it wants."""

    asked: list[str] = []  # noqa: RUF012 - shared on purpose
    wanted = ""

    def do_GET(self):
        self.asked.append(self.path)
        if not self.path.endswith(self.wanted):
            self.send_error(403)
            return
        super().do_GET()

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    handler = partial(_Server, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
    _Server.wanted = ""


class TestOverHttp:
    def test_relative_images_lie_beside_the_manifest(self, web, tmp_path):
        write(tmp_path / "m/a.parquet", uri=["x.jpg"])
        manifest = open_manifest(f"{web}/m/a.parquet")
        assert manifest.folder.uri == f"{web}/m"
        assert [file.name for file in manifest.files] == ["a.parquet"]
        (tmp_path / "m/x.jpg").write_bytes(b"data")
        assert Fetcher(manifest.folder.uri).fetch("x.jpg") == b"data"

    def test_a_signed_url_works_and_stays_secret(self, web, tmp_path, capsys):
        write(tmp_path / "m/a.parquet", uri=["x.jpg", "y.jpg"])
        _Server.wanted = "?X-Amz-Signature=to/ps*cret"
        manifest = open_manifest(f"{web}/m/a.parquet{_Server.wanted}")
        (unit,) = plan_slices(manifest, RowSet())
        (table,) = read_slice(manifest.folder, unit, (), pa.string(), 10)
        assert table.column("uri").to_pylist() == ["x.jpg", "y.jpg"]
        assert table.column("manifest_file").to_pylist() == ["a.parquet"] * 2
        assert "ps*cret" not in f"{json.dumps(manifest.plan())} {manifest.folder}"
        with pytest.raises(InputError) as raised:
            open_manifest(f"{web}/m/none.parquet{_Server.wanted}")
        assert "ps*cret" not in str(raised.value)
        with pytest.raises(InputError) as raised:
            open_manifest(f"{web}/m/a.parquet?X-Amz-Signature=wrong")
        assert "wrong" not in str(raised.value)


class TestHostileManifests:
    def test_text_that_is_no_text(self, tmp_path):
        offsets = pa.py_buffer(np.array([0, 2, 7], np.int32).tobytes())
        uris = pa.Array.from_buffers(
            pa.string(), 2, [None, offsets, pa.py_buffer(b"\xff\xfea.jpg")]
        )
        write(tmp_path / "m.parquet", uri=uris)
        manifest = open_manifest(str(tmp_path / "m.parquet"))
        (unit,) = plan_slices(manifest, RowSet())
        (table,) = read_slice(manifest.folder, unit, (), pa.string(), 10)
        assert table.column("uri").to_pylist() == ["\ufffd\ufffd", "a.jpg"]

    def test_more_rows_than_any_file_has(self, tmp_path, monkeypatch):
        write(tmp_path / "m.parquet", uri=["a", "b", "c"])
        monkeypatch.setattr("iqa_core.tables.manifest._MAX_ROWS", 2)
        with pytest.raises(InputError, match="claims 3 rows, but a file may have 2 at most"):
            open_manifest(str(tmp_path / "m.parquet"))


def test_names_with_signs_of_globs(tmp_path):
    write(tmp_path / "set[1]/m?.parquet", uri=["a"])
    for path in (tmp_path / "set[1]", tmp_path / "set[1]/m?.parquet"):
        manifest = open_manifest(str(path))
        assert [file.name for file in manifest.files] == ["m?.parquet"]


def test_file_uris_are_local(tmp_path):
    write(tmp_path / "m.parquet", uri=["a"])
    assert open_manifest(f"file://{tmp_path}/m.parquet").folder.uri == str(tmp_path)
