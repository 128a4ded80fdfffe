"""Every storage operation of a run as the point where its driver ends: no row is lost, or there twice."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

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
        name, content = next(iter(files.items()))
        with self.world.running(Driver("copy")):
            Folder.of(self.uri).write("part-z.parquet", content)


def seeded(case):
    """An output to continue: rows 0 to 2 of four are fine, two part files hold a row to retry, two rows are twice."""
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


def points_of(operations, *, reads=False):
    """Return the ends of a driver by (moment, number of operation)."""
    numbers = [number for number, name in enumerate(operations) if reads or name in CHANGES]
    within = [number for number, name in enumerate(operations) if name == "write"]
    return [
        *(("end_before", number) for number in numbers),
        *(("end_after", number) for number in numbers),
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


@pytest.mark.parametrize("begin", [new, seeded])
def test_a_driver_that_ends_anywhere(make, begin):
    points = points_of(operations_of(make, begin))
    for moment, number in points:
        case, driver = make(), Driver("first", **{moment: number})
        before = begin(case)
        end_at(case, driver)
        check_resumed(case, before | driver.acknowledged)
    assert len(points) > 40


@pytest.mark.chaos
@pytest.mark.parametrize("begin", [new, seeded])
def test_two_drivers_after_each_other_that_end_anywhere(make, begin):
    first = points_of(operations_of(make, begin), reads=True)
    pairs = 0
    for moment, number in first:
        second = None
        while second is None or second < len(following):
            case = make()
            driver, next_driver = Driver("first", **{moment: number}), Driver("second")
            before = begin(case)
            end_at(case, driver)
            if second is None:  # what the second does depends on where the first ended
                case.drive(next_driver)
                following, second = points_of(next_driver.operations), 0
                continue
            setattr(next_driver, *following[second])
            second += 1
            end_at(case, next_driver)
            check_resumed(case, before | driver.acknowledged | next_driver.acknowledged)
            pairs += 1
    print(f"{len(first):,} single points, {pairs:,} pairs")


def test_a_driver_that_ends_while_another_writes_other_rows(make):
    def with_another(driver):
        """Return a case in which the driver of another shard is in the middle of its own."""
        case = make()
        other = Driver("other", pause_before=None)
        started = []

        def once():
            started.append(True)
            end_or_finish(case, driver, "0/2")
            # Resumed while the other still holds its lease.
            assert (result := case.drive(Driver("resumed"), "0/2")) is None or result.passed

        other.on_pause = once
        return case, other, started

    def end_or_finish(case, driver, shard):
        with suppress(Ended):
            case.drive(driver, shard)

    # Number of the operation in the middle of the other's writes.
    case, other, _ = with_another(Driver("first"))
    case.drive(other, "1/2")
    middle = [n for n, name in enumerate(other.operations) if name in ("put", "replace")][5]
    first = Driver("first")
    case, other, started = with_another(first)
    other.pause_before = middle
    assert case.drive(other, "1/2").passed
    assert started
    for moment, number in points_of(first.operations):
        driver = Driver("first", **{moment: number})
        case, other, started = with_another(driver)
        other.pause_before = middle
        assert case.drive(other, "1/2").passed
        assert started
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
        first = Driver("first", pause_before=number, on_pause=lambda: case.drive(second))  # noqa: B023
        try:
            case.drive(first)
        except InputError as error:  # it has noticed that another took over
            refused += 1
            assert "Traceback" not in str(error)
        check_resumed(case, before | first.acknowledged | second.acknowledged)
    assert refused
