"""Tests of iqa_core/tables/output.py on real Parquet files."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.tables.audit import describe_lost, left_to_do, read_committed
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output, stored_fingerprint
from iqa_core.tables.parts import PartFiles
from iqa_core.tables.plan import read_damaged
from iqa_core.tables.schema import output_schema

FINGERPRINT = {"model": "tiny", "sizes": (1, 2)}


def write(path, /, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    row_group_size = columns.pop("row_group_size", None)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


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
        with output.start({}):
            output.write(self.table(manifest, [0]))
        return output

    def test_commits_are_read_back(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        assert not (tmp_path / "o").exists()
        with output.start({"model": "tiny"}):
            output.write(self.table(manifest, [0, 3], ["ok", "empty"]))
            output.write(self.table(manifest, [1]))
        again = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        assert list(again.committed().rows.rows("a.parquet")) == [0, 1, 3]
        assert again.committed().statuses == {"ok": 2, "empty": 1}
        assert len(again.committed().parts) == 2
        assert again.audit().missing == 3
        assert left_to_do(manifest, again.committed())

    def test_a_first_part_whose_end_nobody_saw_is_kept(self, manifest, tmp_path, monkeypatch):
        """As where a run is interrupted while a thread of it still writes."""
        write_whole = Folder.write

        def write(folder, name, data):
            write_whole(folder, name, data)
            if name.startswith("part-"):
                raise KeyboardInterrupt

        monkeypatch.setattr(Folder, "write", write)
        with pytest.raises(KeyboardInterrupt):
            self.begin(manifest, tmp_path)
        again = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        assert list(again.committed().rows.rows("a.parquet")) == [0]

    def test_a_run_without_rows_binds_nobody(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.start({}):
            assert (tmp_path / "o/_run/fingerprint.json").exists()
        assert list((tmp_path / "o").rglob("*.json")) == []
        # Nor does one that was killed, and could not tidy up.
        with output.start({}):
            left = (tmp_path / "o/_run/fingerprint.json").read_bytes()
        (tmp_path / "o/_run/fingerprint.json").write_bytes(left)
        assert stored_fingerprint(str(tmp_path / "o")) == {}
        other = Output(str(tmp_path / "o"), manifest, {"model": "another"})
        with other.start({}):
            other.write(self.table(manifest, [0]))
        assert stored_fingerprint(str(tmp_path / "o")) == {"model": "another"}
        with pytest.raises(InputError, match="holds another run's rows"):
            Output(str(tmp_path / "o"), manifest, FINGERPRINT)

    def test_rows_to_retry_are_taken_out(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.start({}):
            output.write(self.table(manifest, [0, 1, 2], ["ok", "timeout", "network"]))
            output.write(self.table(manifest, [3], ["timeout"]))
            output.write(self.table(manifest, [4, 5], ["ok", "empty"]))
            assert not left_to_do(manifest, output.committed())
            assert left_to_do(manifest, output.committed(), ["timeout"])
            assert output.drop(["timeout", "forbidden"]) == 2
        again = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        assert list(again.committed().rows.rows("a.parquet")) == [0, 2, 4, 5]
        assert again.committed().statuses == {"ok": 2, "network": 1, "empty": 1}
        assert len(again.committed().parts) == 2

    def test_rows_that_two_drivers_wrote_are_reconciled(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.start({}):
            for numbers in ([0, 1, 2], [2, 3, 3], [1, 2], [4, 5]):
                output.write(self.table(manifest, numbers))
        again = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        assert again.audit().twice == 4
        assert left_to_do(manifest, again.committed())
        with again.start({}):
            pass
        assert again.audit().passed
        assert not left_to_do(manifest, again.committed())

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
        with pytest.raises(InputError, match=r"a\.parquet .* rows changed from 6 to 1 since"):
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
        with pytest.raises(InputError, match=r"manifest file a\.parquet .*: digest changed from"):
            Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)
        write(tmp_path / "m/a.parquet", uri=[str(n) for n in range(6)], mos=[1] * 6)  # put back
        Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)

    def test_a_damaged_manifest_file_may_be_restored(self, manifest, tmp_path):
        path = tmp_path / "m/a.parquet"
        sound = path.read_bytes()
        path.write_bytes(sound[:5] + bytes([sound[5] ^ 1]) + sound[6:])
        damaged = open_manifest(str(tmp_path / "m"))
        output = Output(str(tmp_path / "o"), damaged, FINGERPRINT)
        with output.start({}):
            output.write(self.table(manifest, [0]))
            output.note_damaged(["a.parquet"])
        Output(str(tmp_path / "o"), damaged, FINGERPRINT)
        path.write_bytes(sound)
        restored = open_manifest(str(tmp_path / "m"))
        with Output(str(tmp_path / "o"), restored, FINGERPRINT).start({}):
            pass
        # It is a file like any other from now on, and no other content is taken for a restored one.
        path.write_bytes(sound[:5] + bytes([sound[5] ^ 2]) + sound[6:])
        with pytest.raises(InputError, match=r"manifest file a\.parquet .*: digest changed from"):
            Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)

    def test_a_damaged_file_may_not_become_another_one(self, manifest, tmp_path):
        path = tmp_path / "m/a.parquet"
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.start({}):
            output.write(self.table(manifest, [0]))
            output.note_damaged(["a.parquet"])
        size = path.stat().st_size
        write(path, uri=[str(n) for n in range(5, -1, -1)], mos=[2] * 6)
        assert path.stat().st_size == size
        with pytest.raises(InputError, match=r"manifest file a\.parquet .*: digest changed from"):
            Output(str(tmp_path / "o"), open_manifest(str(tmp_path / "m")), FINGERPRINT)

    def test_lost_rows_note_their_file(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.start({}):
            output.write(self.table(manifest, [0, 1], ["ok", "empty"]))
            assert read_damaged(output.folder) == {}
            output.write(self.table(manifest, [2, 3], ["unreadable", "ok"]))
        assert list(read_damaged(output.folder)) == ["a.parquet"]
        assert describe_lost(output.committed().statuses).startswith("1 rows are lost: their data")
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
        with first.start({}):
            first.write(self.table(manifest, range(6), ["ok", "timeout", *["ok"] * 4]))
            first.write(self.table(manifest, [], []))
        late = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with first.start({}):
            first.drop(["timeout"])  # and a crash
        with late.start({}):
            assert list(late.committed().rows.rows("a.parquet")) == [0, 2, 3, 4, 5]

    def test_the_audit_of_a_run_reconciles_what_a_zombie_wrote(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        zombie = Output(str(tmp_path / "z"), manifest, FINGERPRINT)
        with zombie.start({}), output.start({}):
            output.write(self.table(manifest, range(6)))
            zombie.write(self.table(manifest, [1, 2, 3]))
            (part,) = (tmp_path / "z").glob("part-*.parquet")
            part.rename(tmp_path / "o" / part.name)
            assert output.audit().passed
        assert len(read_committed(PartFiles(output.folder)).rows) == 6
        assert read_committed(PartFiles(output.folder)).rows.duplicates == 0

    def test_what_a_crash_left_half_written_goes_away(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        (tmp_path / "o").mkdir()
        (tmp_path / "o/.part-1-00000.parquet.abc.tmp").write_bytes(b"half")
        (tmp_path / "o/.mine").write_bytes(b"x")
        with output.start({}):
            pass
        assert [path.name for path in (tmp_path / "o").iterdir() if path.is_file()] == [".mine"]

    def test_a_full_disk_is_one_line_whatever_is_written(self, manifest, tmp_path, monkeypatch):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.start({}):

            def full(*_):
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr("os.fsync", full)
                for action in (lambda: output.write(self.table(manifest, [0])), output.finish):
                    arguments = [{}] if action == output.finish else []
                    with pytest.raises(InputError, match=r"No space left .* before is safe"):
                        action(*arguments)
            output.write(self.table(manifest, [0]))

    def test_places_that_do_not_fit(self, manifest, tmp_path):
        with pytest.raises(InputError, match="must be outside of the manifest's folder"):
            Output(str(tmp_path / "m/scores"), manifest, FINGERPRINT)
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match="must be a folder, not a file"):
            Output(str(tmp_path / "file"), manifest, FINGERPRINT)
        write(tmp_path / "strange/x.parquet", uri=["a"])
        with pytest.raises(InputError, match=r"holds Parquet files, but no _run/fingerprint\.json"):
            Output(str(tmp_path / "strange"), manifest, FINGERPRINT)

    def test_damaged_part_files_are_named(self, manifest, tmp_path):
        output = Output(str(tmp_path / "o"), manifest, FINGERPRINT)
        with output.start({}):
            output.write(self.table(manifest, [0]))
        (part,) = (tmp_path / "o").glob("part-*.parquet")
        part.write_bytes(part.read_bytes()[:-9])
        with pytest.raises(InputError, match=rf"part file {part.name} of .* can't be read"):
            read_committed(PartFiles(output.folder))
