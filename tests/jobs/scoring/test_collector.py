"""Tests of jobs/scoring/collector.py: what is committed when, and what is counted."""

from __future__ import annotations

import itertools
import threading

import pyarrow as pa
import pytest

from iqa_core.errors import InputError
from jobs.scoring.breaker import Breaker
from jobs.scoring.collector import Collector
from jobs.scoring.stage_columns import (
    DECODE_SECONDS,
    DECODED_ON,
    DEVICE,
    FETCH_SECONDS,
    MODEL_SECONDS,
    OUT_OF_MEMORY,
)

SCHEMA = pa.schema(
    [
        ("manifest_file", pa.string()),
        ("manifest_row", pa.int64()),
        ("uri", pa.string()),
        ("status", pa.string()),
    ]
)
ROWS = itertools.count()


class Sink:
    """Keeps what is committed."""

    def __init__(self):
        self.tables = []

    def write(self, table):
        self.tables.append(table)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def block(uris, status="ok", halved=0, rows=None):
    """Return a block of rows that there was none of before, unless they are given."""
    count = len(uris)
    return pa.table(
        {
            "manifest_file": ["m.parquet"] * count,
            "manifest_row": rows or [next(ROWS) for _ in uris],
            "uri": uris,
            "status": [status] * count,
            FETCH_SECONDS: [0.5] * count,
            DECODE_SECONDS: [0.25] * count,
            MODEL_SECONDS: [1.0] * count,
            OUT_OF_MEMORY: pa.array([halved] + [0] * (count - 1), pa.int32()),
            DECODED_ON: ["node 10.0.0.9 (abcdef01)"] * count,
            DEVICE: ["CPU of node a, process 1"] * count,
        }
    )


@pytest.fixture
def clock():
    return Clock()


def collector(sink, clock, breaker=None, seen_here=lambda uri: False):
    return Collector(sink, SCHEMA, 30.0, breaker, seen_here, clock)


def test_the_first_rows_are_committed_soon_and_later_ones_at_intervals(clock):
    sink = Sink()
    with collector(sink, clock) as collected:
        collected.commit_if_due()
        clock.now += 100  # of starting up
        collected.add(block(["a"]))
        collected.commit_if_due()
        assert collected.seconds_left == 1
        collected.add(block(["b"]))
        clock.now += 1
        collected.commit_if_due()
        collected.add(block(["c"]))
        assert collected.seconds_left == 30
        clock.now += 29
        collected.commit_if_due()
        assert collected.seconds_left == 1
        clock.now += 1
        collected.commit_if_due()
        clock.now += 31
        collected.commit_if_due()  # nothing is pending
    assert [table.select(["uri", "status"]).to_pydict() for table in sink.tables] == [
        {"uri": ["a", "b"], "status": ["ok"] * 2},
        {"uri": ["c"], "status": ["ok"]},
    ]


def test_many_pending_bytes_are_committed_at_once(clock, monkeypatch):
    monkeypatch.setattr("jobs.scoring.collector._PART_BYTES", 50)
    sink = Sink()
    with collector(sink, clock) as collected:
        collected.add(block(["x" * 60]))
        collected.commit_if_due()
    assert len(sink.tables) == 1


class SlowSink(Sink):
    """Writes once it may."""

    def __init__(self):
        super().__init__()
        self.may_write = threading.Event()

    def write(self, table):
        assert self.may_write.wait(60)
        super().write(table)


def test_blocks_are_taken_while_a_part_is_written(clock):
    sink = SlowSink()
    with collector(sink, clock) as collected:
        for name in "abc":
            collected.add(block([name]))
            collected.commit_if_due()
            clock.now += 31
        assert sink.tables == []
        sink.may_write.set()
        collected.commit()
        assert pa.concat_tables(sink.tables).column("uri").to_pylist() == ["a", "b", "c"]


def test_pending_rows_do_not_grow_without_limit_beside_a_slow_store(clock, monkeypatch):
    monkeypatch.setattr("jobs.scoring.collector._MOST_PENDING_BYTES", 50)
    sink = SlowSink()
    with collector(sink, clock) as collected:
        collected.add(block(["a"]))
        collected.commit_if_due()
        clock.now += 31
        collected.commit_if_due()  # begins to write
        threading.Timer(0.2, sink.may_write.set).start()
        collected.add(block(["b" * 60]))
        collected.commit_if_due()
        assert len(sink.tables) == 1


def test_a_part_that_cannot_be_written_ends_the_run(clock):
    class Full(Sink):
        def write(self, table):
            raise InputError("no space left")

    with collector(Full(), clock) as collected:
        collected.add(block(["a"]))
        with pytest.raises(InputError, match="no space left"):
            collected.commit()


def test_counts(clock):
    collected = collector(Sink(), clock)
    collected.add(block(["a", "b"], halved=2))
    collected.add(block(["c"], status="timeout"))
    assert collected.statuses == {"ok": 2, "timeout": 1}
    assert collected.busy == {"fetch": 1.5, "decode": 0.75, "model": 3.0}
    assert collected.out_of_memory == 2
    assert collected.devices == {"CPU of node a, process 1": 3}


def test_rows_that_came_before_do_not_count(clock):
    """As of a task that Ray runs again, whose blocks end elsewhere: some are new, some are not."""
    sink = Sink()
    collected = collector(sink, clock)
    collected.add(block(["a", "b"], rows=[0, 1]))
    collected.commit()
    collected.add(block(["c"], rows=[2]))
    collected.add(block(["b", "c", "d"], rows=[1, 2, 3]))
    collected.add(block(["d"], status="timeout", rows=[3]))
    collected.commit()
    assert pa.concat_tables(sink.tables).column("uri").to_pylist() == ["a", "b", "c", "d"]
    assert collected.statuses == {"ok": 4}
    assert collected.busy["model"] == 4.0


def test_rows_that_failed_in_an_outage_are_not_committed(clock):
    sink = Sink()
    collected = collector(sink, clock, Breaker(window=4))
    collected.add(block(["s3://other/1"]))
    collected.add(block([f"s3://a/{number}" for number in range(4)], status="network"))
    assert "of s3://a failed with 'network'" in collected.broken
    assert collected.statuses == {"ok": 1}
    collected.commit()
    assert pa.concat_tables(sink.tables).column("uri").to_pylist() == ["s3://other/1"]


def test_an_image_that_only_this_node_sees(clock):
    collected = collector(Sink(), clock, seen_here=lambda uri: uri == "here.jpg")
    collected.add(block(["gone.jpg"], status="not_found"))
    with pytest.raises(InputError, match=r"^node 10\.0\.0\.9 .* can't see the image here\.jpg"):
        collected.add(block(["here.jpg"], status="not_found"))


def test_finished_rows_are_committed_before_an_error_ends_the_run(clock):
    def end(collected):
        with collected.committed_on_error():
            raise InputError("the wait is over")

    sink = Sink()
    with collector(sink, clock) as collected:
        collected.add(block(["a", "b"]))
        with pytest.raises(InputError, match="the wait is over"):
            end(collected)
        assert [table["uri"].to_pylist() for table in sink.tables] == [["a", "b"]]
