"""One output, and selections from it."""

from __future__ import annotations

import pytest

from iqa_core.selecting.engine import Engine
from iqa_core.selecting.request import Request
from iqa_core.selecting.selection import Selection
from iqa_core.selecting.sources import open_scores
from tests.iqa_core.selecting.outputs import made_up, write_output


@pytest.fixture(scope="session")
def frame():
    return made_up(20_000)


@pytest.fixture(scope="session")
def output(frame, tmp_path_factory):
    return write_output(tmp_path_factory.mktemp("select") / "scores", frame)


@pytest.fixture
def select(output):
    """Return the selected identities, in order, and the counts."""

    def run(*others, clusters=None, **request):
        with Engine("500MB") as engine:
            sources = open_scores([output, *others])
            selection = Selection(engine, sources, Request(**request), clusters)
            rows = [row for b in selection.rows() for row in b.to_pylist()]
            return rows, selection.counts

    return run
