"""The tutorials for each kind of user: all blocks, after the first two steps of the tutorial."""

from __future__ import annotations

import re
from contextlib import chdir
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.test_tutorial import BLOCKS as FIRST_STEPS
from tests.test_tutorial import IMAGES, run_shell

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PAGES = sorted((Path(__file__).parents[1] / "docs/tutorials").glob("*.md"))
#: By page: what is there in the end, with its rows.
MADE = {
    "curator": {"better.parquet": 38, "originals.parquet": 4, "second": 38},
    "generation-team": {"best-of-n.parquet": 4, "both.parquet": 4, "disputed.parquet": 10},
    "photo-service": {"covers.parquet": 4, "review.parquet": 4, "again.parquet": 1},
    "researcher": {"to-label.parquet": 40},
}


def run(blocks, page, capsys):
    names = {}
    for kind, block in blocks:
        if kind == "bash":
            run_shell(block, capsys)
        else:
            exec(compile(block, page, "exec"), names)  # noqa: S102


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tutorials")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs(page, folder, ray_cluster, capsys):
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    assert {kind for kind, _ in blocks} == {"bash", "python"}
    with chdir(folder):
        if not (folder / "fixed").exists():
            run(FIRST_STEPS[:2], "docs/tutorial.md", capsys)
            assert pq.read_table("fixed").num_rows == IMAGES
        run(blocks, page.name, capsys)
        for name, rows in MADE[page.stem].items():
            assert pq.read_table(name).num_rows == rows, name


def test_each_page_is_here():
    assert {page.stem for page in PAGES} == set(MADE)
