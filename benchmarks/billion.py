"""`python -m benchmarks.billion`: docs/billion.md, a billion images on 64 GPUs by arithmetic.

Measures nothing: the figures of the driver, of planning and of decoding are those in `benchmarks/results/`.
What is assumed (rates of a GPU, prices, limits of S3) has a table of its own on the page. `--check` writes
nothing and exits with 1 if the page on disk is another one; a test does the same.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.page import write_or_check
from benchmarks.results import FOLDER

TEMPLATE = Path(__file__).with_name("billion.md")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "billion.md"

ROWS = 10**9
GPUS = 64
#: Images per second of one GPU: nothing here was measured on a card, so a range.
GPU_RATES = (500, 2000, 5000)


@dataclass(frozen=True)
class Assumed:
    """What is not measured here: limits and prices of a cloud, to be replaced by one's own.

    Attributes:
        get_per_second: GET requests per second that S3 takes for one prefix, as AWS documents it.
        put_per_second: PUT requests likewise.
        get_price: US dollars for 1,000 GET requests.
        put_price: US dollars for 1,000 PUT requests.
        cpu_hour: US dollars for a CPU for an hour, on the spot market.
        gpu_hour: US dollars for a GPU for an hour, likewise, without its node's CPUs.
        decode_node_cpus: CPUs of a node that decodes.
        node_gbit: Network of a node, Gbit/s.
        commit_seconds: `--commit-seconds`.
        block_rows: Rows of a block that is read, of so large a manifest.
        call_rows: Rows of a block of pixels, and of a call of an actor.
        pixel_bytes: Bytes of an image of 224 x 224 on its way from decoding to scoring.
        driver_share: Share of a core that a driver may be busy, above which blocks wait for it.
    """

    get_per_second: float = 5500
    put_per_second: float = 3500
    get_price: float = 0.0004
    put_price: float = 0.005
    cpu_hour: float = 0.02
    gpu_hour: float = 0.5
    decode_node_cpus: int = 16
    node_gbit: float = 12.5
    commit_seconds: float = 30
    block_rows: int = 3120
    call_rows: int = 1560
    pixel_bytes: int = 224 * 224 * 3
    driver_share: float = 0.7


@dataclass(frozen=True)
class Measured:
    """What the benchmarks measured.

    Attributes:
        driver_ms: CPU milliseconds of the driver for 1,000 images.
        decode_ms: CPU milliseconds to decode a JPEG of 640 x 480 to 224 x 224.
        image_kb: Size of that JPEG.
        open_seconds: Opening a manifest of a billion rows in 10,000 files, 50 ms a request.
        committed_seconds: Reading what is committed, 99 % of a billion rows.
        plan_seconds: Planning all rows.
        rest_seconds: Planning where every other row is done.
        audit_seconds: The audit.
        verify_seconds: `iqa verify`, which reads every part file to its end.
        peak_mb: Peak memory of the driver, with every other row done.
        slices: Slices of that plan, each a read task.
    """

    driver_ms: float
    decode_ms: float
    image_kb: float
    open_seconds: float
    committed_seconds: float
    plan_seconds: float
    rest_seconds: float
    audit_seconds: float
    verify_seconds: float
    peak_mb: float
    slices: int

    @classmethod
    def read(cls, folder: Path = FOLDER) -> Measured:
        """Return the figures of the results of driver, scale and decode."""
        driver, scale, decode = (
            json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("driver", "scale", "decode")
        )
        (billion,) = [each for each in scale["raw"] if each["rows"] == ROWS]
        resume, scattered = billion["resume"], billion["scattered"]
        times = decode["raw"]["open_clip"]["640 x 480, noise 0"]["milliseconds"]["fast"]
        return cls(
            driver_ms=statistics.median(driver["raw"]["driver"]),
            decode_ms=statistics.median(times),
            image_kb=float(decode["tables"][0]["rows"][0][1]),
            open_seconds=billion["store"]["open"],
            committed_seconds=resume["committed"],
            plan_seconds=resume["fresh plan"],
            rest_seconds=scattered["plan"],
            audit_seconds=scattered["audit"],
            verify_seconds=billion["verify"]["verify"],
            peak_mb=scattered["peak_mb"],
            # 1 % was left in the measured plan; a fresh one has a slice for each 50,000 rows.
            slices=ROWS // 50_000,
        )


@dataclass(frozen=True)
class Run:
    """A billion images at one rate, by arithmetic.

    Attributes:
        rate: Images per second of all GPUs.
        hours: Hours of the steady state.
        decode_cpus: CPUs that decode.
        decode_nodes: Nodes of them.
        read_gbit: Gbit/s of encoded images from the store.
        node_gbit: Of one decoding node.
        pixel_gbit: Gbit/s of pixels into the node of one GPU.
        prefixes: Prefixes that the images must be spread over, for S3's limit.
        driver_cores: Cores that one driver would need.
        shards: Drivers, for each to be busy for 70 % of a core at most.
        blocks: Blocks in all.
        blocks_per_second: Blocks per second.
        part_files: Part files in all.
        puts_per_second: PUT requests per second.
        request_cost: US dollars for requests.
        machine_cost: US dollars for CPUs and GPUs.
    """

    rate: float
    hours: float
    decode_cpus: int
    decode_nodes: int
    read_gbit: float
    node_gbit: float
    pixel_gbit: float
    prefixes: int
    driver_cores: float
    shards: int
    blocks: int
    blocks_per_second: float
    part_files: int
    puts_per_second: float
    request_cost: float
    machine_cost: float

    @property
    def cost_per_million(self) -> float:
        """US dollars for a million images."""
        return (self.request_cost + self.machine_cost) * 1e6 / ROWS


def arithmetic(
    gpu_rate: float, measured: Measured, assumed: Assumed, rows: int = ROWS, gpus: int = GPUS
) -> Run:
    """Return what a run takes.

    Args:
        gpu_rate: Images per second of one GPU.
        measured: What the benchmarks say.
        assumed: Limits and prices.
        rows: Images.
        gpus: GPUs.
    """
    rate = gpu_rate * gpus
    hours = rows / rate / 3600
    decode_cpus = math.ceil(rate * measured.decode_ms / 1000)
    nodes = math.ceil(decode_cpus / assumed.decode_node_cpus)
    gbit = rate * measured.image_kb * 1000 * 8 / 1e9
    driver_cores = rate / 1000 * measured.driver_ms / 1000
    shards = math.ceil(driver_cores / assumed.driver_share)
    commits = math.ceil(hours * 3600 / assumed.commit_seconds)
    part_files = shards * commits
    requests = rows / 1000 * assumed.get_price + part_files / 1000 * assumed.put_price
    return Run(
        rate=rate,
        hours=hours,
        decode_cpus=decode_cpus,
        decode_nodes=nodes,
        read_gbit=gbit,
        node_gbit=gbit / nodes,
        pixel_gbit=gpu_rate * assumed.pixel_bytes * 8 / 1e9,
        prefixes=math.ceil(rate / assumed.get_per_second),
        driver_cores=driver_cores,
        shards=shards,
        blocks=math.ceil(rows / assumed.block_rows),
        blocks_per_second=rate / assumed.block_rows,
        part_files=part_files,
        puts_per_second=shards / assumed.commit_seconds,
        request_cost=requests,
        machine_cost=hours * (decode_cpus * assumed.cpu_hour + gpus * assumed.gpu_hour),
    )


def limits(measured: Measured, assumed: Assumed) -> list[tuple[str, float, str]]:
    """Return what ends a run's growth, with the images per second at which it does, lowest first."""
    driver = assumed.driver_share / measured.driver_ms * 1e6
    found = [
        (
            "GET requests to one prefix of the store",
            assumed.get_per_second,
            "spread the images over prefixes; what is throttled is retried with back-off",
        ),
        ("one driver", driver, "`--shard K/N`: several drivers fill one output"),
    ]
    return sorted(found, key=lambda limit: limit[1])


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def render(measured: Measured | None = None, assumed: Assumed | None = None) -> str:
    """Return the page, Markdown."""
    measured, assumed = measured or Measured.read(), assumed or Assumed()
    runs = [arithmetic(rate, measured, assumed) for rate in GPU_RATES]
    middle = runs[len(runs) // 2]
    first, *_ = limits(measured, assumed)
    return TEMPLATE.read_text(encoding="utf-8").format(
        rows=f"{ROWS:,}",
        gpus=GPUS,
        measured=_table(["measured", "value", "by"], _measured_rows(measured)),
        assumed=_table(["assumed", "value"], _assumed_rows(assumed)),
        runs=_table(
            ["", *(f"{rate:,} images/s a GPU" for rate in GPU_RATES)],
            _run_rows(runs),
        ),
        limits=_table(
            ["limit", "images per second", "what then"],
            [[name, f"{rate:,.0f}", then] for name, rate, then in limits(measured, assumed)],
        ),
        first=first[0],
        decoded=f"{1000 * assumed.decode_node_cpus / measured.decode_ms:,.0f}",
        fetched=f"{assumed.node_gbit * 1e9 / (measured.image_kb * 8000):,.0f}",
        taken=f"{assumed.node_gbit * 1e9 / (assumed.pixel_bytes * 8):,.0f}",
        cpus=assumed.decode_node_cpus,
        before=f"{measured.open_seconds + measured.plan_seconds:.0f}",
        resumed=f"{measured.open_seconds + measured.committed_seconds + measured.rest_seconds:.0f}",
        after=f"{measured.audit_seconds:.1f}",
        verify=f"{measured.verify_seconds / 60:.0f}",
        peak=f"{measured.peak_mb:,.0f}",
        slices=f"{measured.slices:,}",
        shards=middle.shards,
        rate=f"{GPU_RATES[1]:,}",
        driver_ms=f"{measured.driver_ms:.1f}",
        total=f"{middle.rate:,.0f}",
        cores=f"{middle.driver_cores:.1f}",
    )


def _measured_rows(measured: Measured) -> list[list[str]]:
    return [
        ["driver's CPU for 1,000 images", f"{measured.driver_ms:.1f} ms", "`benchmarks.driver`"],
        [
            "decoding a JPEG of 640 x 480 to 224 x 224",
            f"{measured.decode_ms:.2f} ms of a CPU, {measured.image_kb:.0f} KB",
            "`benchmarks.decode`",
        ],
        [
            "opening the manifest, 10,000 files, 50 ms a request",
            f"{measured.open_seconds:.0f} s",
            "`benchmarks.scale`",
        ],
        ["reading what is committed", f"{measured.committed_seconds:.0f} s", "`benchmarks.scale`"],
        ["planning all rows", f"{measured.plan_seconds:.0f} s", "`benchmarks.scale`"],
        [
            "planning the rest, every other row done",
            f"{measured.rest_seconds:.0f} s, {measured.peak_mb:,.0f} MB",
            "`benchmarks.scale`",
        ],
        ["the audit", f"{measured.audit_seconds:.1f} s", "`benchmarks.scale`"],
        ["`iqa verify`", f"{measured.verify_seconds:.0f} s", "`benchmarks.scale`"],
    ]


def _assumed_rows(assumed: Assumed) -> list[list[str]]:
    return [
        [
            "requests that S3 takes for one prefix",
            f"{assumed.get_per_second:,.0f} GET/s, {assumed.put_per_second:,.0f} PUT/s",
        ],
        ["price of 1,000 requests", f"${assumed.get_price:g} GET, ${assumed.put_price:g} PUT"],
        [
            "price of an hour on the spot market",
            f"${assumed.cpu_hour:g} a CPU, ${assumed.gpu_hour:g} a GPU",
        ],
        ["network of a node", f"{assumed.node_gbit:g} Gbit/s"],
        ["CPUs of a node that decodes", f"{assumed.decode_node_cpus}"],
        ["seconds between two part files of a driver", f"{assumed.commit_seconds:g}"],
        ["rows of a block that is read", f"{assumed.block_rows:,}"],
        ["rows of a call of an actor", f"{assumed.call_rows:,}"],
    ]


def _run_rows(runs: list[Run]) -> list[list[str]]:
    def row(name: str, form: str, value: Any) -> list[str]:
        return [name, *(form.format(value(run)) for run in runs)]

    return [
        row("images per second", "{:,.0f}", lambda run: run.rate),
        row("hours", "{:.1f}", lambda run: run.hours),
        row("CPUs that decode", "{:,}", lambda run: run.decode_cpus),
        row("nodes of these", "{:,}", lambda run: run.decode_nodes),
        row("from the store, Gbit/s", "{:.1f}", lambda run: run.read_gbit),
        row("of it into one node, Gbit/s", "{:.1f}", lambda run: run.node_gbit),
        row("pixels into the node of one GPU, Gbit/s", "{:.1f}", lambda run: run.pixel_gbit),
        row("prefixes for S3's limit", "{:,}", lambda run: run.prefixes),
        row("cores of one driver", "{:.1f}", lambda run: run.driver_cores),
        row("drivers (`--shard`)", "{:,}", lambda run: run.shards),
        row("blocks", "{:,}", lambda run: run.blocks),
        row("blocks per second", "{:.1f}", lambda run: run.blocks_per_second),
        row("part files", "{:,}", lambda run: run.part_files),
        row("requests, US dollars", "{:,.0f}", lambda run: run.request_cost),
        row("machines, US dollars", "{:,.0f}", lambda run: run.machine_cost),
        row("a million images, US dollars", "{:.2f}", lambda run: run.cost_per_million),
    ]


def main() -> None:
    """Write or check the page."""
    write_or_check(PAGE, render, __doc__.splitlines()[0], "python -m benchmarks.billion")


if __name__ == "__main__":
    main()
