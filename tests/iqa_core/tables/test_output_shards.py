"""Several drivers on one output: processes that each do a shard, on disk and on S3."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.tables.audit import audit, read_committed
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_shard import Shard
from iqa_core.tables.output import Output
from iqa_core.tables.parts import PartFiles
from iqa_core.tables.plan import read_damaged
from jobs.cli import main
from tests.iqa_core.tables.shard_runs import left, rows
from tests.s3 import BUCKET, s3_server

ROOT = Path(__file__).parents[3]
FILES = {"a.parquet": 40, "b.parquet": 7, "c.parquet": 53}
FINGERPRINT = {"model": "tiny"}


def write_manifest(folder, files=FILES):
    folder.mkdir(exist_ok=True)
    for name, count in files.items():
        uris = [f"{name}-{number}.jpg" for number in range(count)]
        pq.write_table(pa.table({"uri": uris}), folder / name, row_group_size=10)
    return str(folder)


@pytest.fixture
def manifest(tmp_path):
    return write_manifest(tmp_path / "m")


@pytest.fixture
def start(manifest, tmp_path):
    """Starts drivers; all are ended with the test."""
    processes = []

    def begin(shard, model="tiny", part_rows=10, output=tmp_path / "o", env=None, uri=manifest):
        words = ["-m", "tests.iqa_core.tables.shard_runs", uri, output, shard, model, part_rows]
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env or os.environ,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def heard(process):
    return process.stdout.readline().strip()


def step(process):
    """Let a driver write its next part file; return what it says then."""
    process.stdin.write("\n")
    process.stdin.flush()
    return heard(process)


def finish(process):
    """Let a driver write all that is left; return its last line."""
    out, _ = process.communicate("\n" * 1000, timeout=60)
    return out.strip().splitlines()[-1]


def whole(manifest, folder, **options):
    """Return the audit of all of an output's rows."""
    parts = PartFiles(Folder.of(str(folder)))
    return audit(open_manifest(manifest, **options), read_committed(parts).rows)


def verify(manifest, folder):
    return main(["verify", "--scores", str(folder), "--manifest", manifest])


def test_three_drivers_at_the_same_time(start, manifest, tmp_path, capsys):
    drivers = [start(f"{index}/3") for index in range(3)]
    assert [heard(driver) for driver in drivers] == ["started"] * 3
    for _ in range(2):
        assert [step(driver) for driver in drivers] == ["wrote"] * 3
    assert len(list((tmp_path / "o/_run").glob("lease-*"))) == 3
    ends = [finish(driver) for driver in drivers]
    assert all(line.startswith("passed ") for line in ends), ends
    assert sum(int(line.split()[1]) for line in ends) == 100
    assert verify(manifest, tmp_path / "o") == 0
    assert "100 rows in, 100 rows out: none missing, none twice" in capsys.readouterr().out
    found = sorted(path.name for path in (tmp_path / "o/_run").iterdir())
    assert found == [
        "config.json",
        "fingerprint.json",
        "plan.json",
        *(f"summary-000{index}-of-0003.json" for index in range(3)),
    ]
    assert json.loads((tmp_path / "o/_run/plan.json").read_text())["rows"] == 100


def test_a_killed_driver_is_resumed_while_the_other_writes(start, manifest, tmp_path):
    killed, other = start("0/2"), start("1/2")
    assert [heard(killed), heard(other)] == ["started"] * 2
    assert [step(killed), step(other)] == ["wrote"] * 2
    assert whole(manifest, tmp_path / "o").found == 20
    killed.kill()
    killed.wait()
    again = start("0/2")
    assert heard(again) == "started"
    assert finish(again) == "passed 50"
    assert finish(other) == "passed 50"
    assert whole(manifest, tmp_path / "o").passed
    assert verify(manifest, tmp_path / "o") == 0


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (
            "0/2",
            "0/2",
            r"refused: shard 0/2 of output .* whose rows overlap with those of shard 0/2",
        ),
        (
            "1/2",
            "3/5",
            r"refused: shard 1/2 of output .* whose rows overlap with those of shard 3/5",
        ),
        ("0/2", "-", r"refused: shard 0/2 of output .* is being written by process \d+ on"),
        (
            "-",
            "1/2",
            r"refused: output .* whose rows overlap with those of shard 1/2: wait for it",
        ),
    ],
)
def test_drivers_of_the_same_rows_are_refused(first, second, text, start):
    holder = start(first)
    assert heard(holder) == "started"
    assert re.match(text, heard(start(second)))
    assert finish(holder).startswith("passed")


def test_another_number_of_shards_takes_what_is_left(start, manifest, tmp_path):
    old = start("0/2")
    assert heard(old) == "started"
    assert step(old) == "wrote"
    new = start("3/4")  # of rows that nobody does now
    assert heard(new) == "started"
    assert finish(new) == "passed 25"
    old.kill()
    old.wait()
    for index in range(3):
        assert finish(start(f"{index}/3")).startswith("passed")
    assert whole(manifest, tmp_path / "o").passed
    assert verify(manifest, tmp_path / "o") == 0


def test_first_starters_with_different_options_do_not_mix(start, manifest, tmp_path):
    tiny, big = start("0/2", "tiny"), start("1/2", "big")
    said = [heard(tiny), heard(big)]
    assert "started" in said or all("refused" in line for line in said)
    for driver, line in ((tiny, said[0]), (big, said[1])):
        if line == "started":
            assert finish(driver) == "passed 50"
        else:
            assert "with other options or versions, and the two don't mix" in line
    fingerprints = read_committed(PartFiles(Folder.of(str(tmp_path / "o")))).fingerprints
    assert len(fingerprints) <= 1


def test_a_run_that_joins_with_other_options_is_refused(start):
    first = start("0/2")
    assert heard(first) == "started"
    assert "with other options or versions" in heard(start("1/2", "big"))
    assert step(first) == "wrote"
    assert "holds another run's rows, with model 'tiny'" in heard(start("1/2", "big"))


def test_a_manifest_that_grows_gives_no_row_to_two(start, manifest, tmp_path):
    first = start("0/2")
    assert heard(first) == "started"
    write_manifest(Path(manifest), {"aa.parquet": 30, "d.parquet": 5})
    # The second half begins elsewhere now, within the rows of the first run.
    moved = heard(start("0/2"))
    assert "whose rows overlap" in moved
    second = start("1/2")
    assert "started" in heard(second) or "overlap" in moved
    assert finish(first) == "passed 50"
    second.communicate("\n" * 100, timeout=60)
    for index in range(2):
        assert finish(start(f"{index}/2")).startswith("passed")
    assert whole(manifest, tmp_path / "o").passed
    assert whole(manifest, tmp_path / "o").found == 135


def test_two_drivers_on_s3(start, tmp_path, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    with s3_server() as (_, environment, options):
        fs = s3fs.S3FileSystem(**options)
        fs.mkdir(BUCKET)
        local = Path(write_manifest(tmp_path / "local"))
        for path in local.iterdir():
            fs.pipe_file(f"{BUCKET}/m/{path.name}", path.read_bytes())
        places = {"output": f"s3://{BUCKET}/o", "uri": f"s3://{BUCKET}/m", "env": environment}
        killed, other = start("0/2", **places), start("1/2", **places)
        assert [heard(killed), heard(other)] == ["started"] * 2
        assert [step(killed), step(other)] == ["wrote"] * 2
        assert "whose rows overlap" in heard(start("1/3", **places))
        killed.kill()
        killed.wait()
        assert finish(start("0/2", **places)) == "passed 50"
        assert finish(other) == "passed 50"
        found = fs.glob(f"{BUCKET}/o/part-*.parquet")
        tables = [pq.read_table(fs.open(path), columns=["manifest_row"]) for path in found]
        assert sum(map(len, tables)) == 100
        assert len(fs.glob(f"{BUCKET}/o/_run/summary-*")) == 2
        assert fs.glob(f"{BUCKET}/o/_run/lease-*") == []


class TestWithinOneProcess:
    @contextmanager
    def run(self, manifest, folder, shard=None):
        opened = open_manifest(manifest).only(Shard.of(shard) if shard else None)
        output = Output(str(folder), opened, FINGERPRINT)
        with output.start({}):
            yield opened, output

    def test_each_sees_its_own_rows_only(self, manifest, tmp_path):
        with self.run(manifest, tmp_path / "o") as (opened, output):
            numbers = left(opened, output)
            output.write(rows(opened, numbers[:70]))
            output.write(rows(opened, numbers[70:80], "timeout"))
        with self.run(manifest, tmp_path / "o", "1/2") as (opened, output):
            assert len(output.committed().rows) == 30
            assert output.committed().statuses == {"ok": 20, "timeout": 10}
            assert len(left(opened, output)) == 20
            result = output.audit()
            assert (result.rows, result.found, result.missing, result.unknown) == (50, 30, 20, 0)
            assert str(result).startswith(
                "shard 1/2: 50 rows in, 30 rows out: 20 missing (such as c.p"
            )
            assert all(example.startswith("c.parquet:") for example in result.examples)
        with self.run(manifest, tmp_path / "o", "0/2") as (opened, output):
            assert output.audit().passed
            assert str(output.audit()) == (
                "shard 0/2: 50 rows in, 50 rows out: none missing, none twice"
            )

    def test_retries_replace_own_files_only(self, manifest, tmp_path):
        for shard in ("0/2", "1/2"):
            with self.run(manifest, tmp_path / "o", shard) as (opened, output):
                numbers = left(opened, output)
                output.write(rows(opened, numbers[:45]))
                output.write(rows(opened, numbers[45:], "timeout"))
        before = {path: path.read_bytes() for path in (tmp_path / "o").glob("part-*-0000-of-*")}
        assert len(before) == 2
        with self.run(manifest, tmp_path / "o", "1/2") as (opened, output):
            assert output.drop(["timeout"]) == 5
            assert len(left(opened, output)) == 5
            output.write(rows(opened, left(opened, output)))
            assert output.audit().passed
        assert {path: path.read_bytes() for path in before} == before
        assert read_committed(PartFiles(output.folder)).statuses == {"ok": 95, "timeout": 5}

    def test_retries_of_another_shard_take_files_away_meanwhile(
        self, manifest, tmp_path, monkeypatch
    ):
        for shard in ("0/2", "1/2"):
            with self.run(manifest, tmp_path / "o", shard) as (opened, output):
                output.write(rows(opened, left(opened, output), "timeout"))
        read = PartFiles.content
        taken = []

        def content(parts, name, *arguments, **options):
            """Read a file; before, the other shard takes away all of its rows, once."""
            if not taken:
                taken.append(name)
                with self.run(manifest, tmp_path / "o", "1/2") as (_, other):
                    assert other.drop(["timeout"]) == 50
            return read(parts, name, *arguments, **options)

        monkeypatch.setattr(PartFiles, "content", content)
        with self.run(manifest, tmp_path / "o", "0/2") as (opened, output):
            assert output.drop(["timeout"]) == 50
            output.write(rows(opened, left(opened, output)))
            assert output.audit().passed
        assert taken

    def test_retries_of_rows_in_shared_files_are_refused(self, manifest, tmp_path):
        with self.run(manifest, tmp_path / "o") as (opened, output):
            numbers = left(opened, output)
            output.write(rows(opened, numbers[:40]))
            output.write(rows(opened, numbers[40:60], "timeout"))
            output.write(rows(opened, numbers[60:], "empty"))
        before = {path: path.read_bytes() for path in (tmp_path / "o").glob("part-*")}
        with self.run(manifest, tmp_path / "o", "0/2") as (_, output):
            with pytest.raises(InputError, match=r"rows to retry of shard 0/2 are in 1 part files"):
                output.drop(["timeout"])
            assert output.drop(["network"]) == 0
            assert output.drop(["empty"]) == 0  # another shard's
        assert {path: path.read_bytes() for path in before} == before
        with self.run(manifest, tmp_path / "o", "1/2") as (_, output):
            assert output.drop(["empty"]) == 40

    def test_rows_twice_go_from_own_files(self, manifest, tmp_path):
        with self.run(manifest, tmp_path / "o") as (opened, output):
            output.write(rows(opened, left(opened, output)[40:60]))
        with self.run(manifest, tmp_path / "o", "0/2") as (opened, output):
            numbers = left(opened, output)
            output.write(rows(opened, numbers))
            output.write(rows(opened, [*numbers[:3], ("b.parquet", 0)]))  # as a zombie does
            assert output.audit().passed
        assert whole(manifest, tmp_path / "o").twice == 0
        assert whole(manifest, tmp_path / "o").found == 60

    def test_files_of_another_shard_that_are_being_written_stay(self, manifest, tmp_path):
        (tmp_path / "o").mkdir()
        other = tmp_path / "o/.part-1-0000-of-0002-00000.parquet.abc.tmp"
        own = tmp_path / "o/.part-1-0001-of-0002-00000.parquet.abc.tmp"
        for path in (other, own):
            path.write_bytes(b"half")
        with self.run(manifest, tmp_path / "o", "1/2"):
            assert other.exists()
            assert not own.exists()

    def test_a_shard_without_rows_takes_nothing_away(self, manifest, tmp_path):
        with (
            self.run(manifest, tmp_path / "o", "0/2") as (opened, output),
            self.run(manifest, tmp_path / "o", "1/2"),
        ):
            pass
        assert (tmp_path / "o/_run/fingerprint.json").exists()
        with (
            self.run(manifest, tmp_path / "o", "0/2") as (opened, output),
            self.run(manifest, tmp_path / "o", "199/200") as (_, empty),
        ):
            assert len(empty.committed().rows) == 0
            output.write(rows(opened, left(opened, output)))
        assert whole(manifest, tmp_path / "o").found == 50

    def test_damaged_files_are_recorded_by_each(self, manifest, tmp_path):
        with (
            self.run(manifest, tmp_path / "o", "0/2") as (first, one),
            self.run(manifest, tmp_path / "o", "1/2") as (second, other),
        ):
            one.write(rows(first, [("a.parquet", 0)], "unreadable"))
            other.write(rows(second, [("c.parquet", 9)], "unreadable"))
        assert set(read_damaged(one.folder)) == {"a.parquet", "c.parquet"}
