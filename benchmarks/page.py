"""`python -m benchmarks.page`: docs/performance.md from the results in benchmarks/results/, and its figure.

`--check` writes nothing and exits with 1 if the page on disk is another one; a test does the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.prompt_learning_figure import FIGURE, draw
from benchmarks.results import FOLDER

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"

HEAD = """# Performance

Made by `python -m benchmarks.page` from `benchmarks/results/`, which the named commands write: anyone can
measure it again. Do not edit it by hand: a test compares it with the results.

Figures are medians with minimum and maximum over rounds. What is compared ran in turns in one command, so
that ratios hold better than the figures themselves. No figure here comes from a GPU: the paths for GPUs are
tested on Ray's logical GPUs and with stub towers, and have not been seen on a card.
"""

#: Benchmark -> heading and what is measured, in the order of the page.
SECTIONS = {
    "job": (
        "The whole job in steady state",
        "`iqa score` against plain processes that read, decode and score the same images with the same "
        "functions, one for each CPU. The aim is 0.95; the CPU time beside the workers is lost to them.",
    ),
    "peers": ("Against other tools", "Whole commands, on the same images and weights."),
    "startup": (
        "Start",
        "From the command to the first committed row, and a run with nothing to do.",
    ),
    "decode": ("Decoding", "Encoded bytes to pixels of the model's size, one thread."),
    "towers": ("Image towers", "Pixels to features: this project's towers against the usual ones."),
    "precision": (
        "Half precision on CPUs",
        "Image towers in fp32, bf16 and fp16 on one processor; other processors differ much.",
    ),
    "driver": (
        "Driver, actor and pool",
        "Stub towers on logical GPUs: what a cluster of any size pays for each image in its driver, how "
        "busy a device is kept, and how fast a pool starts.",
    ),
    "gpu": (
        "One GPU",
        "Towers alone, the scoring actor that holds one, and decoding on the device.",
    ),
    "scale": ("A billion rows", "Planning, resuming and auditing synthetic manifests and outputs."),
    "long_run": (
        "A million rows through the whole job",
        "Memory of the driver and the workers, and the rate, against a short run.",
    ),
    "rescore": ("Scoring from features", "`iqa rescore` on cached features, without images."),
    "select": (
        "Selecting",
        "`iqa select` on outputs of made-up scores: seconds and memory of the whole command.",
    ),
    "select_large": (
        "Selecting from a hundred million rows",
        "Rows are counted against what the generator of the output knows.",
    ),
    "plan": ("Forecasts", "`iqa plan` against the run that follows."),
    "dedupe": (
        "Copies",
        "`iqa score --dedupe` on a manifest with copies, against a run without it.",
    ),
    "duplicates": (
        "Near duplicates",
        "`iqa duplicates` on photographs and their copies, and the time of its search.",
    ),
    "embeddings": (
        "Features of other programs",
        "What `--check-images` sees of other preprocessing and other models, and the cost of each form.",
    ),
    "crops": (
        "Several crops",
        "`iqa score --crops` on photographs of 12 megapixels, a part of which is blurred.",
    ),
    "train_step": ("Training", "A step, its parts, two workers, and the start from a large cache."),
    "prompt_learning": (
        "Learned prompts",
        "Learned and fixed prompts on fresh photographs, by a protocol that was fixed before.",
    ),
    "evaluation_null": (
        "p values without a difference",
        "`iqa evaluate --resample-by` on studies in which there is nothing to find.",
    ),
}


def render() -> str:
    """Return the page, Markdown."""
    parts = [HEAD]
    for name, (heading, what) in SECTIONS.items():
        path = FOLDER / f"{name}.json"
        if path.exists():
            parts.append(f"## {heading}\n\n{what}\n\n{_section(json.loads(path.read_text()))}")
    return "\n".join(parts)


def _section(result: dict[str, Any]) -> str:
    machine = result["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    lines = [
        f"`{result['command']}`, {result['date']}, on {machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gb']} GB, Python {machine['python']}, {packages}.",
        "",
    ]
    for table in result["tables"]:
        lines += [f"**{table['title']}**", ""]
        lines.append("| " + " | ".join(table["columns"]) + " |")
        lines.append("|---" * len(table["columns"]) + "|")
        lines += ["| " + " | ".join(map(str, row)) + " |" for row in table["rows"]]
        lines.append("")
    for note in result["notes"]:
        lines += [note, ""]
    return "\n".join(lines)


def write_or_check(page: Path, render: Callable[[], str], about: str, command: str) -> None:
    """Write a page that follows from the results, or with ``--check`` fail if it differs.

    Args:
        page: The file.
        render: Returns its text.
        about: The command's description.
        command: What makes the page.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it differs")
    if not parser.parse_args().check:
        page.write_text(render(), encoding="utf-8")
    elif page.read_text(encoding="utf-8") != render():
        sys.exit(f"{page.name} is not what the results say: run {command}")


def figure() -> str:
    """Return docs/prompt_learning.svg."""
    result = json.loads((FOLDER / "prompt_learning.json").read_text(encoding="utf-8"))
    return draw(result["raw"])


def main() -> None:
    """Write or check the figure and the page."""
    write_or_check(FIGURE, figure, __doc__.splitlines()[0], "python -m benchmarks.page")
    write_or_check(PAGE, render, __doc__.splitlines()[0], "python -m benchmarks.page")


if __name__ == "__main__":
    main()
