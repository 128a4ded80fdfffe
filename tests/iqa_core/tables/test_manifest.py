"""Tests of iqa_core/tables/manifest.py, rows.py and output.py on real Parquet files."""

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
from iqa_core.tables.manifest import open_manifest, plan_units, read_unit
from iqa_core.tables.output import (
    Output,
    audit,
    begun_with,
    describe_lost,
    output_schema,
    read_committed,
    read_damaged,
)
from iqa_core.tables.rows import RowSet

FINGERPRINT = {"model": "tiny", "sizes": (1, 2)}


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
        for unit in plan_units(manifest, done or RowSet())
        for table in read_unit(manifest.folder, unit, keep, manifest.image_id_type, batch_rows)
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
        (unit,) = plan_units(
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


class TestRowSet:
    def test_counts_rows_and_duplicates(self):
        rows = RowSet()
        rows.add(rows_of("a", [3, 1, 3]))
        rows.add(pa.concat_tables([rows_of("a", [1, 2]), rows_of("b", [1])]))
        assert len(rows) == 4
        assert rows.duplicates == 2
        assert list(rows.rows("a")) == [1, 2, 3]
        assert rows.files() == {"a", "b"}


class TestAudit:
    @pytest.fixture
    def manifest(self, tmp_path):
        write(tmp_path / "a.parquet", uri=[str(n) for n in range(6)])
        write(tmp_path / "b.parquet", uri=["x", "y"])
        return open_manifest(str(tmp_path))

    def test_passes_if_each_row_is_there_once(self, manifest):
        rows = RowSet()
        rows.add(rows_of("a.parquet", range(6)))
        rows.add(rows_of("b.parquet", [1, 0]))
        result = audit(manifest, rows)
        assert result.passed
        assert str(result) == "8 rows in, 8 rows out: none missing, none twice"

    def test_names_what_is_wrong(self, manifest):
        rows = RowSet()
        rows.add(rows_of("a.parquet", [0, 1, 2, 5, 5, 6, 9]))
        rows.add(rows_of("c.parquet", [0]))
        result = audit(manifest, rows)
        assert not result.passed
        assert (result.found, result.missing, result.twice, result.unknown) == (4, 4, 1, 3)
        assert result.examples == ("a.parquet:3", "a.parquet:4", "b.parquet:0", "b.parquet:1")


class TestOutput:
    @pytest.fixture
    def manifest(self, tmp_path):
        write(tmp_path / "m/a.parquet", uri=[str(n) for n in range(6)], mos=[1] * 6)
        return open_manifest(str(tmp_path / "m"))

    def table(self, manifest, numbers, statuses=None):
        schema = output_schema(manifest, ["mos"], pairs=["p"])
        rows = [
            {
                "manifest_file": "a.parquet",
                "manifest_row": n,
                "status": status,
                "score": 0.5 if status == "ok" else None,
            }
            for n, status in zip(numbers, statuses or ["ok"] * len(numbers), strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=schema)

    def begin(self, manifest, tmp_path):
        """Return an output with one row."""
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.writing({}, 30):
            output.commit(self.table(manifest, [0]))
        return output

    def test_commits_are_read_back(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        assert not (tmp_path / "o").exists()
        with output.writing({"model": "tiny"}, 30):
            output.commit(self.table(manifest, [0, 3], ["ok", "empty"]))
            output.commit(self.table(manifest, [1]))
        again = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        assert list(again.committed.rows.rows("a.parquet")) == [0, 1, 3]
        assert again.committed.statuses == {"ok": 2, "empty": 1}
        assert len(again.committed.parts) == 2
        assert again.audit().missing == 3
        assert again.left_to_do()

    def test_a_run_without_rows_binds_nobody(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.writing({}, 30):
            assert (tmp_path / "o/_run/fingerprint.json").exists()
        assert list((tmp_path / "o").rglob("*.json")) == []
        # Nor does one that was killed, and could not tidy up.
        with output.writing({}, 30):
            left = (tmp_path / "o/_run/fingerprint.json").read_bytes()
        (tmp_path / "o/_run/fingerprint.json").write_bytes(left)
        assert begun_with(str(tmp_path / "o")) == {}
        other = Output(str(tmp_path / "o"), manifest, {"model": "another"})
        with other.writing({}, 30):
            other.commit(self.table(manifest, [0]))
        assert begun_with(str(tmp_path / "o")) == {"model": "another"}
        with pytest.raises(InputError, match="holds another run's rows"):
            Output(str(tmp_path / "o"), manifest, FINGERPRINT)

    def test_rows_to_retry_are_taken_out(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.writing({}, 30):
            output.commit(self.table(manifest, [0, 1, 2], ["ok", "timeout", "network"]))
            output.commit(self.table(manifest, [3], ["timeout"]))
            output.commit(self.table(manifest, [4, 5], ["ok", "empty"]))
            assert not output.left_to_do()
            assert output.left_to_do(["timeout"])
            assert output.drop(["timeout", "forbidden"]) == 2
        again = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        assert list(again.committed.rows.rows("a.parquet")) == [0, 2, 4, 5]
        assert again.committed.statuses == {"ok": 2, "network": 1, "empty": 1}
        assert len(again.committed.parts) == 2

    def test_rows_that_two_drivers_wrote_are_reconciled(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.writing({}, 30):
            for numbers in ([0, 1, 2], [2, 3, 3], [1, 2], [4, 5]):
                output.commit(self.table(manifest, numbers))
        again = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        assert again.audit().twice == 4
        assert again.left_to_do()
        with again.writing({}, 30):
            pass
        assert again.audit().passed
        assert not again.left_to_do()

    def test_another_fingerprint_is_refused(self, manifest, tmp_path):
        self.begin(manifest, tmp_path)
        with pytest.raises(InputError, match="with model 'tiny' where this run has 'big'"):
            Output(str(tmp_path / "o"), manifest, FINGERPRINT | {"model": "big"})
        with pytest.raises(InputError, match=r"with sizes .* where this run has None"):
            Output(str(tmp_path / "o"), manifest, {"model": "tiny"})

    def test_a_changed_manifest_is_refused(self, manifest, tmp_path):
        self.begin(manifest, tmp_path)
        write(tmp_path / "m/b.parquet", uri=["new"], mos=[1])
        Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)
        write(tmp_path / "m/a.parquet", uri=["1"], mos=[1])
        with pytest.raises(InputError, match=r"a\.parquet .* its rows was 6 .* is 1"):
            Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)
        (tmp_path / "m/a.parquet").unlink()
        with pytest.raises(InputError, match=r"manifest file a\.parquet is gone"):
            Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)

    def test_a_manifest_file_of_the_same_size_is_noticed(self, manifest, tmp_path):
        self.begin(manifest, tmp_path)
        before = (tmp_path / "m/a.parquet").stat().st_size
        # The same rows in another order: rows, size, and all that the footer says stay equal.
        write(tmp_path / "m/a.parquet", uri=list("024135"), mos=[1] * 6)
        assert (tmp_path / "m/a.parquet").stat().st_size == before
        with pytest.raises(
            InputError, match=r"manifest file a\.parquet .* has changed: its digest"
        ):
            Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)
        write(tmp_path / "m/a.parquet", uri=[str(n) for n in range(6)], mos=[1] * 6)  # put back
        Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)

    def test_a_damaged_manifest_file_may_be_restored(self, manifest, tmp_path):
        path = tmp_path / "m/a.parquet"
        sound = path.read_bytes()
        path.write_bytes(sound[:5] + bytes([sound[5] ^ 1]) + sound[6:])
        damaged = open_manifest(str(tmp_path / "m"))
        output = Output(str(tmp_path / "o"), damaged, FINGERPRINT)
        with output.writing({}, 30):
            output.commit(self.table(manifest, [0]))
            output.note_damaged(["a.parquet"])
        Output(str(tmp_path / "o"), damaged, FINGERPRINT)
        path.write_bytes(sound)
        restored = open_manifest(str(tmp_path / "m"))
        with Output(str(tmp_path / "o"), restored, FINGERPRINT).writing({}, 30):
            pass
        # It is a file like any other from now on, and no other content is taken for a restored one.
        path.write_bytes(sound[:5] + bytes([sound[5] ^ 2]) + sound[6:])
        with pytest.raises(
            InputError, match=r"manifest file a\.parquet .* has changed: its digest"
        ):
            Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)

    def test_a_damaged_file_may_not_become_another_one(self, manifest, tmp_path):
        path = tmp_path / "m/a.parquet"
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.writing({}, 30):
            output.commit(self.table(manifest, [0]))
            output.note_damaged(["a.parquet"])
        size = path.stat().st_size
        write(path, uri=[str(n) for n in range(5, -1, -1)], mos=[2] * 6)
        assert path.stat().st_size == size
        with pytest.raises(
            InputError, match=r"manifest file a\.parquet .* has changed: its digest"
        ):
            Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)

    def test_lost_rows_note_their_file(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.writing({}, 30):
            output.commit(self.table(manifest, [0, 1], ["ok", "empty"]))
            assert read_damaged(output.folder) == {}
            output.commit(self.table(manifest, [2, 3], ["unreadable", "ok"]))
        assert list(read_damaged(output.folder)) == ["a.parquet"]
        assert describe_lost(output.committed.statuses).startswith("1 rows are lost: their data")
        assert describe_lost({"ok": 3}) == ""

    def test_outputs_of_versions_without_digests_go_on(self, manifest, tmp_path):
        output = self.begin(manifest, tmp_path)
        plan = output.folder.read_json("_run/plan.json")
        for file in plan["files"]:
            del file["digest"]
        output.folder.write_json("_run/plan.json", plan)
        Output(str(tmp_path / "o"), manifest, FINGERPRINT)

    def test_rows_that_another_driver_took_out_are_seen(self, manifest, tmp_path):
        first = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with first.writing({}, 30):
            first.commit(self.table(manifest, range(6), ["ok", "timeout", *["ok"] * 4]))
            first.commit(self.table(manifest, [], []))
        late = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with first.writing({}, 30):
            first.drop(["timeout"])  # and a crash
        with late.writing({}, 30):
            assert list(late.committed.rows.rows("a.parquet")) == [0, 2, 3, 4, 5]

    def test_the_audit_of_a_run_reconciles_what_a_zombie_wrote(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        zombie = Output(str(tmp_path / "z"), manifest, FINGERPRINT)
        with zombie.writing({}, 30), output.writing({}, 30):
            output.commit(self.table(manifest, range(6)))
            zombie.commit(self.table(manifest, [1, 2, 3]))
            (part,) = (tmp_path / "z").glob("part-*.parquet")
            part.rename(tmp_path / "o" / part.name)
            assert output.audit().passed
        assert len(read_committed(output.folder).rows) == 6
        assert read_committed(output.folder).rows.duplicates == 0

    def test_what_a_crash_left_half_written_goes_away(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        (tmp_path / "o").mkdir()
        (tmp_path / "o/.part-1-00000.parquet.abc.tmp").write_bytes(b"half")
        (tmp_path / "o/.mine").write_bytes(b"x")
        with output.writing({}, 30):
            pass
        assert [path.name for path in (tmp_path / "o").iterdir() if path.is_file()] == [".mine"]

    def test_a_full_disk_is_one_line_whatever_is_written(self, manifest, tmp_path, monkeypatch):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.writing({}, 30):

            def full(*_):
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr("os.fsync", full)
                for action in (lambda: output.commit(self.table(manifest, [0])), output.finish):
                    arguments = [{}] if action == output.finish else []
                    with pytest.raises(InputError, match=r"No space left .* before is safe"):
                        action(*arguments)
            output.commit(self.table(manifest, [0]))

    def test_places_that_do_not_fit(self, manifest, tmp_path):
        with pytest.raises(InputError, match="lies in the manifest's folder"):
            Output(str(tmp_path / "m/scores"), manifest, FINGERPRINT)
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match="is a file, but must be a folder"):
            Output(str(tmp_path / "file"), manifest, FINGERPRINT)
        write(tmp_path / "strange/x.parquet", uri=["a"])
        with pytest.raises(InputError, match=r"holds Parquet files, but no _run/fingerprint\.json"):
            Output(str(tmp_path / "strange"), manifest, FINGERPRINT)

    def test_damaged_part_files_are_named(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.writing({}, 30):
            output.commit(self.table(manifest, [0]))
        (part,) = (tmp_path / "o").glob("part-*.parquet")
        part.write_bytes(part.read_bytes()[:-9])
        with pytest.raises(InputError, match=rf"part file {part.name} of .* can't be read"):
            read_committed(output.folder)

    def test_kept_columns_may_not_hide_the_outputs_own(self, manifest):
        with pytest.raises(InputError, match="--keep 'uri' is the name of a column"):
            output_schema(manifest, ["uri"])


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
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
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
        (unit,) = plan_units(manifest, RowSet())
        (table,) = read_unit(manifest.folder, unit, (), pa.string(), 10)
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
        (unit,) = plan_units(manifest, RowSet())
        (table,) = read_unit(manifest.folder, unit, (), pa.string(), 10)
        assert table.column("uri").to_pylist() == ["\ufffd\ufffd", "a.jpg"]

    def test_more_rows_than_any_file_has(self, tmp_path, monkeypatch):
        write(tmp_path / "m.parquet", uri=["a", "b", "c"])
        monkeypatch.setattr("iqa_core.tables.manifest._MAX_ROWS", 2)
        with pytest.raises(InputError, match="states 3 rows, but a file may have 2 at most"):
            open_manifest(str(tmp_path / "m.parquet"))


def test_names_with_signs_of_globs(tmp_path):
    write(tmp_path / "set[1]/m?.parquet", uri=["a"])
    for path in (tmp_path / "set[1]", tmp_path / "set[1]/m?.parquet"):
        manifest = open_manifest(str(path))
        assert [file.name for file in manifest.files] == ["m?.parquet"]


def test_file_uris_are_local(tmp_path):
    write(tmp_path / "m.parquet", uri=["a"])
    assert open_manifest(f"file://{tmp_path}/m.parquet").folder.uri == str(tmp_path)
