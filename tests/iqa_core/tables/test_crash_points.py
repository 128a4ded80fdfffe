"""Every storage operation of a run as the point where its driver ends: no row is lost, or there twice."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.storage.folder import Folder
from iqa_core.tables.audit import left_to_do
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_shard import Shard
from iqa_core.tables.output import Output
from tests.crash_points import CHANGES, Driver, Ended, World, install
from tests.iqa_core.tables.shard_runs import left, rows

ROWS = 8
FINGERPRINT = {"model": "tiny"}
RETRY = ("timeout",)
LEASE_SECONDS = 20.0


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    table = pa.table({"uri": [f"{number}.jpg" for number in range(ROWS)]})
    pq.write_table(table, folder / "a.parquet", row_group_size=2)
    return str(folder)


@dataclass
class Case:
    """One output in a world of its own."""

    world: World
    manifest: str
    uri: str

    def drive(self, driver, shard=None, stop_after=ROWS):
        """Do what a run does; return its audit, or None if nothing was left to do."""
        with self.world.running(driver):
            whole = open_manifest(self.manifest)
            manifest = whole.only(Shard.of(shard) if shard else None)
            output = Output(self.uri, manifest, FINGERPRINT, LEASE_SECONDS)
            if not left_to_do(manifest, output.committed(), RETRY):
                return None
            with output.start({}):
                output.drop(RETRY)
                missing = left(manifest, output)
                for start in range(0, min(stop_after, len(missing)), 2):
                    places = missing[start : start + 2]
                    output.write(rows(manifest, places))
                    driver.acknowledged |= {row for _, row in places}
                result = output.audit()
                output.finish({})
            return result

    def found(self):
        """Return how often each row is in the output, and its part files' bytes by name."""
        with self.world.running(Driver("reader")):
            folder = Folder.of(self.uri)
            files = {name: folder.read(name) for name in folder.list("part-*.parquet")}
        counts = Counter()
        for content in files.values():
            table = pq.read_table(pa.BufferReader(content))
            counts.update(
                table.filter(pa.compute.field("status") == "ok")["manifest_row"].to_pylist()
            )
        return counts, files

    def copy_a_part(self):
        """Have two rows twice, as of two drivers."""
        _, files = self.found()
        content = next(iter(files.values()))
        with self.world.running(Driver("copy")):
            Folder.of(self.uri).write("part-z.parquet", content)


def seeded(case):
    """Begin an output: three rows are fine, two in two files are to be retried, two are there twice."""
    driver = Driver("seed")
    with case.world.running(driver):
        manifest = open_manifest(case.manifest)
        output = Output(case.uri, manifest, FINGERPRINT, LEASE_SECONDS)
        with output.start({}):
            output.write(rows(manifest, [("a.parquet", 0), ("a.parquet", 1)]))
            both = [
                rows(manifest, [("a.parquet", 2)]),
                rows(manifest, [("a.parquet", 3)], "timeout"),
            ]
            output.write(pa.concat_tables(both))
            output.write(rows(manifest, [("a.parquet", 4)], "timeout"))
    case.copy_a_part()
    return {0, 1, 2}


def new(case):
    return set()


@pytest.fixture(params=["disk", "store"])
def make(request, manifest, tmp_path, monkeypatch):
    """Makes cases; each has its own world."""
    number = 0

    def case():
        nonlocal number
        number += 1
        world = World()
        root = tmp_path / f"o{number}"
        install(world, root, monkeypatch)
        return Case(world, manifest, str(root) if request.param == "disk" else "crash://o")

    patched = monkeypatch.context()
    with patched as monkeypatch:
        yield case


def points_of(operations):
    """Return the ends of a driver by (moment, number of operation): those that leave different states.

    To end before an operation that reads, or before one that changes something, is to end after the change
    before it.
    """
    changes = [number for number, name in enumerate(operations) if name in CHANGES]
    within = [number for number in changes if operations[number] == "write"]
    return [
        ("end_before", 0),
        *(("end_after", number) for number in changes),
        *(("end_within", number) for number in within),
    ]


def operations_of(make, begin):
    case, driver = make(), Driver("first")
    begin(case)
    assert case.drive(driver).passed
    return driver.operations


def check_resumed(case, before):
    """Resume on another machine, and prove that each row is there once."""
    assert case.found()[0].keys() >= before, "a committed row is lost"
    result = case.drive(Driver("last"))
    assert result is None or result.passed
    assert case.found()[0] == dict.fromkeys(range(ROWS), 1)
    assert case.drive(Driver("again")) is None


def end_at(case, driver):
    """Run until the driver ends."""
    with suppress(Ended):
        case.drive(driver)
    assert driver.has_ended


def ended_at(make, begin, point):
    """Return a case whose first driver ended at a point, and the rows that were committed then."""
    case, driver = make(), Driver("first", **dict([point]))
    before = begin(case)
    end_at(case, driver)
    return case, before | driver.acknowledged


@pytest.mark.parametrize("begin", [new, seeded])
def test_a_driver_that_ends_anywhere(make, begin):
    points = points_of(operations_of(make, begin))
    for point in points:
        check_resumed(*ended_at(make, begin, point))
    assert len(points) > 10


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("begin", [new, seeded])
def test_two_drivers_after_each_other_that_end_anywhere(make, begin):
    first = points_of(operations_of(make, begin))
    pairs = 0
    for point in first:
        # What the second does depends on where the first ended.
        case, _ = ended_at(make, begin, point)
        second = Driver("second")
        case.drive(second)
        for following in points_of(second.operations):
            case, before = ended_at(make, begin, point)
            driver = Driver("second", **dict([following]))
            end_at(case, driver)
            check_resumed(case, before | driver.acknowledged)
            pairs += 1
    print(f"{len(first):,} single points, {pairs:,} pairs")


class TestTwoShards:
    """The driver of one shard ends, while that of another is in the middle of its writes."""

    def run(self, make, driver, middle):
        """Let a driver of the first shard run while the other is before an operation; return the case."""

        def meanwhile():
            with suppress(Ended):
                case.drive(driver, "0/2")
            if driver.has_ended:  # resumed while the other still holds its lease
                result = case.drive(Driver("resumed"), "0/2")
                assert result is None or result.passed

        case = make()
        other = Driver("other", pause_before=middle, on_pause=meanwhile)
        assert case.drive(other, "1/2").passed
        return case

    def test_one_ends_anywhere(self, make):
        other = Driver("other")
        make().drive(other, "1/2")
        writes = [n for n, name in enumerate(other.operations) if name in ("put", "replace")]
        middle = writes[len(writes) // 2]
        first = Driver("first")
        self.run(make, first, middle)
        for point in points_of(first.operations):
            driver = Driver("first", **dict([point]))
            case = self.run(make, driver, middle)
            assert driver.has_ended
            assert case.found()[0] == dict.fromkeys(range(ROWS), 1)
            assert case.drive(Driver("again")) is None


def test_a_driver_that_is_suspended_anywhere_while_another_takes_over(make):
    """It wakes up after its lease ran out, in the middle of what it did."""
    operations = operations_of(make, seeded)
    refused = 0
    for number in range(len(operations)):
        case, second = make(), Driver("second")
        before = seeded(case)
        first = Driver("first", pause_before=number, is_suspended_then=True)
        first.on_pause = partial(case.drive, second)
        try:
            case.drive(first)
        except InputError:  # it has noticed that another took over
            refused += 1
        check_resumed(case, before | first.acknowledged | second.acknowledged)
    assert refused
