"""Tests of jobs/scoring/feed.py on iterables; with Ray's data sets it is used by every run."""

from __future__ import annotations

import threading

import pytest

from jobs.scoring.feed import BlockFeed, ExecutionError


def blocks(*items):
    """Yield items; raise errors; wait for events."""
    for item in items:
        if isinstance(item, threading.Event):
            item.wait()
        elif isinstance(item, BaseException):
            raise item
        else:
            yield item


def test_blocks_come_in_order_and_then_the_end():
    with BlockFeed(blocks(1, 2)) as feed:
        assert [feed.next(timeout=10) for _ in range(3)] == [1, 2, feed.END]


def test_none_if_no_block_comes_in_time():
    late = threading.Event()
    with BlockFeed(blocks(late, 1)) as feed:
        assert feed.next(timeout=0.01) is None
        late.set()
        assert feed.next(timeout=10) == 1


def test_an_error_of_the_execution_is_the_cause():
    failure = ValueError("no such file")
    with BlockFeed(blocks(1, failure)) as feed:
        assert feed.next(timeout=10) == 1
        with pytest.raises(ExecutionError, match="no such file") as caught:
            feed.next(timeout=10)
    assert caught.value.__cause__ is failure


def test_a_closed_feed_ends_its_thread():
    with BlockFeed(blocks(*range(1000))) as feed:
        assert feed.next(timeout=10) == 0
    assert not feed._thread.is_alive()
