"""Tests of iqa_core/selecting/engine.py that are not about a selection."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque

import pytest

from iqa_core.selecting.engine import Engine

#: Half an hour of work.
COUNT = "SELECT count(*) FROM range(3000000) a, range(200000) b WHERE (a.range * b.range) % 7 = 3"
STREAM = COUNT.replace("count(*)", "a.range")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_statement(streamed, threads):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    began = time.monotonic()
    try:
        with Engine("100MB", threads=threads) as engine:
            interrupt.start()
            with pytest.raises(KeyboardInterrupt):
                deque(engine.batches(STREAM), maxlen=0) if streamed else engine.run(COUNT)
    finally:
        interrupt.join()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 20
