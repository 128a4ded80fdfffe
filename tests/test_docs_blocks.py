"""Every block of commands in the documentation is run by a test, or says why it is not.

A comment before the block says so: ``<!-- run: TEST -->``, ``<!-- not run: REASON -->``, or at the top of a
page ``<!-- all blocks run: TEST -->``. Blocks that name this test are run here, in their order, with tiny
in place of models that would be downloaded.
"""

from __future__ import annotations

import re
import shlex
from contextlib import chdir
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.tables.schema import ExtraColumn
from jobs.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (run|not run): ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.M
)
WHOLE = re.compile(r"^<!-- all blocks run: (\S+) -->$", re.MULTILINE)
#: No commands: what a file holds.
DATA = {"toml", "diff", "json", "yaml"}
#: The README has no comments, as it is what people see first: first line of a block -> its mark.
README = {
    "make demo": (
        "not run",
        "`make test` is what CI runs; the demo is minutes of the other block's commands",
    ),
    "pip install .": ("run", "tests/test_docs.py"),
}
HERE = "tests/test_docs_blocks.py"
MODELS = re.compile(r"(RN50|ViT-B-32)/openai")


def blocks(page):
    """Return (mark, what it says, language, content) of each block of a page that has commands."""
    text = page.read_text(encoding="utf-8")
    whole = WHOLE.search(text)
    found = []
    for mark, says, language, content in BLOCK.findall(text):
        if language in DATA:
            continue
        if page.name == "README.md":
            first = content.partition("\n")[0]
            marks = (README[start] for start in README if first.startswith(start))
            mark, says = next(marks, ("", ""))
        elif not mark and whole:
            mark, says = "run", whole[1]
        found.append((mark, says, language, content))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_block_is_run_or_says_why_not(page):
    for mark, says, _, content in blocks(page):
        assert mark, f"{page.name}: no comment before the block\n{content}"
        if mark == "not run":
            assert len(says) > 6, content
        else:
            file = ROOT / says.partition(",")[0]
            assert file.is_file()
            own = file.read_text(encoding="utf-8")
            assert (
                f"{page.relative_to(ROOT)}" in own.replace('ROOT / "docs', "docs")
                or page.name in own
            )


def test_marks_are_found():
    kinds = [mark for page in PAGES for mark, *_ in blocks(page)]
    assert kinds.count("run") > 10
    assert "not run" in kinds


@pytest.fixture
def home(tmp_path, photos, monkeypatch):
    """A home folder with `photos/`, which is the working folder, too."""
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(list(photos.values())[:4]):
        Image.fromarray(image[:120, :120]).save(tmp_path / f"photos/{number}.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    with chdir(tmp_path):
        yield tmp_path


def run_here(page, names):
    """Run the blocks of a page that name this test; return how many there were."""
    count = 0
    for mark, says, language, content in blocks(ROOT / page):
        if mark != "run" or not says.startswith(HERE):
            continue
        count += 1
        if language == "python":
            exec(compile(content, page, "exec"), names)  # noqa: S102
            continue
        for line in content.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(MODELS.sub("tiny", line), comments=True)
            assert program == "iqa"
            assert main([str(Path(word).expanduser()) for word in words]) == 0, line
    return count


@pytest.mark.ray
@pytest.mark.slow
def test_the_blocks_of_scoring_and_sizing_run(ray_cluster, home, capsys):
    assert run_here("docs/scoring.md", {}) == 3
    assert pq.read_table("scores-attributes").num_rows == 4
    capsys.readouterr()
    assert run_here("docs/sizing.md", {}) == 2
    assert "iqa score --manifest photos.parquet" in capsys.readouterr().out


def test_the_column_of_the_output_page():
    names = {}
    assert run_here("docs/output.md", names) == 1
    assert isinstance(names["aspect"], ExtraColumn)
    rows = pa.table({"width": pa.array([4], pa.int32()), "height": pa.array([2], pa.int32())})
    assert names["aspect"].compute(rows).to_pylist() == [2.0]
