"""The tutorial's blocks, all of them, in their order, as a reader runs them."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import chdir
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from iqa_core.prompts.file import load_prompts
from jobs.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", (ROOT / "docs/tutorial.md").read_text(), re.DOTALL | re.MULTILINE
)
IMAGES = 4 * (1 + 6 * 3)


def run_shell(block, capsys):
    """Run lines of `iqa ...`, the last perhaps with `> FILE`; return what they printed."""
    said = ""
    for line in block.splitlines():
        command, target = re.fullmatch(r"(.*?)(?: > ([\w./-]+))?", line).groups()
        program, *words = shlex.split(command)
        assert program == "iqa"
        status = main(words)
        out, err = capsys.readouterr()
        assert status == 0, out + err
        if target:
            Path(target).write_text(out)
        said += out
    return said


def test_tutorial(ray_cluster, tmp_path, capsys):
    assert [kind for kind, _ in BLOCKS] == [
        *("python", "bash", "python", "python", "bash", "bash", "bash", "python", "bash", "python")
    ]
    names, said = {}, ""
    with chdir(tmp_path):
        for kind, block in BLOCKS:
            if kind == "bash":
                said += run_shell(block, capsys)
            else:
                exec(compile(block, "docs/tutorial.md", "exec"), names)  # noqa: S102
    assert f"{IMAGES} rows in, {IMAGES} rows out: none missing, none twice" in said
    rows = pq.read_table(tmp_path / "learned").to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    assert len({row["image_id"] for row in rows}) == len(rows) == IMAGES

    assert load_prompts(str(tmp_path / "prompts.safetensors")).context.shape[-2] == 8
    assert "<html" in (tmp_path / "prompts.html").read_text()

    # the fixed prompts see every kind of damage, and learning did no harm
    assert names["srcc"]["fixed"] > 0.8
    assert names["srcc"]["learned"] > names["srcc"]["fixed"] - 0.05
    kinds = {kind for kind in names["by_kind"] if kind != "none"}
    assert len(kinds) == 6
    assert all(names["by_kind"][kind] > 0.7 for kind in kinds)
    assert "bootstrap intervals from 200 resamples of" in said
    assert "learned - fixed" in said or "fixed - learned" in said
    assert (tmp_path / "scatter.svg").read_text().startswith("<svg")

    page = (tmp_path / "report.html").read_text()
    data = page.partition('id="data">')[2].partition("</script>")[0]
    document = json.loads(data)
    assert len(document["rows"]) == IMAGES
    assert None not in document["pictures"]
    assert "Rank change" in [column["label"] for column in document["columns"]]
    assert "Learned against fixed" in page
