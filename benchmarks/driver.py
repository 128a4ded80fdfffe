"""What the driver, an actor and the start of a pool cost, with stub towers on Ray's logical GPUs.

    python -m benchmarks.driver [--rounds 5] [--json FILE]

No GPU is needed: a stub tower sleeps as long as a device would compute, and Ray places its actors by
logical GPUs.

* driver: the whole run (reading, decoding, scoring, committing) of 224 x 224 pixels, in blocks as a large
  manifest has them, with a decoder and a tower that cost nothing. The CPU time of the driver's process
  per 1,000 images is the difference of two lengths of run, so that its start does not count.
* actor: blocks of 224 x 224 pixels, as decoders yield them, lie ready in shared memory, and a tower needs
  60 us an image. The share of the time from the actor's first to its last forward pass in which the tower
  was busy.
* pool: towers that need 6 s to start; the time until 8 actors have started, against that of one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import torch

from benchmarks.results import Table, save, show, spread
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.images.decode import Decoded
from iqa_core.preprocess import Preprocess
from iqa_core.scoring.features import PromptFeatures
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.output import Output
from iqa_core.tables.rows import RowSet
from iqa_core.tables.schema import output_schema
from jobs.scoring.dataset import call_rows, pinned, scored_pixels, set_up_ray_data
from jobs.scoring.driver import run_pipeline
from jobs.scoring.pixels import PixelBlock
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.policy import RunPolicy
from jobs.scoring.pool import ActorPool
from jobs.scoring.settings import StageSettings

PROMPTS = PromptFeatures(("p",), np.array([[[1, 0], [0, 1]]], dtype=np.float32), 1.0, "digest")


@dataclass
class StubTower:
    """Takes a known time and returns the same features for every image.

    Attributes:
        seconds: Of each image.
        starting: Seconds until it is ready.
        notes: A folder; the tower writes there when it started, and when it computed.
        file: The open file of this process in that folder.
    """

    seconds: float
    starting: float = 0.0
    notes: Path | None = None
    file: int | None = None

    def to_device(self, device: str, precision: str) -> Self:
        """Sleep, as loading weights does."""
        time.sleep(self.starting)
        self._note("start", time.time(), time.time())
        return self

    def encode(self, pixels: np.ndarray) -> torch.Tensor:
        """Sleep, as a device computes."""
        began = time.time()
        if self.seconds:
            time.sleep(len(pixels) * self.seconds)
        self._note("busy", began, time.time())
        return torch.tensor([[0.6, 0.8]]).expand(len(pixels), 2)

    def _note(self, what: str, began: float, ended: float) -> None:
        if self.notes is not None:
            if self.file is None:
                # It stays open: to open it for each batch would take a share of the time.
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self.file = os.open(self.notes / f"{os.getpid()}", flags)
            os.write(self.file, (json.dumps([what, began, ended]) + "\n").encode())

    @staticmethod
    def read(notes: Path, what: str) -> list[tuple[float, float]]:
        """Return when towers did something: (began, ended)."""
        lines = [
            json.loads(line) for path in notes.iterdir() for line in path.read_text().splitlines()
        ]
        return sorted((began, ended) for name, began, ended in lines if name == what)


@dataclass(frozen=True)
class StubDecoder:
    """Returns the same small image, whatever the bytes are."""

    side: int = 32

    def __call__(self, _: bytes) -> Decoded:
        """Return the image."""
        return Decoded(np.zeros((self.side, self.side, 3), np.uint8), self.side, self.side)


def settings(folder: Path, schema: pa.Schema, tower: Any, side: int) -> StageSettings:
    """Return the settings of a run with stubs."""
    return StageSettings(
        tower=tower,
        fetcher=Fetcher(str(folder)),
        preprocess=Preprocess(size=(side, side), mean=(0.5,) * 3, std=(0.5,) * 3),
        decoder=StubDecoder(side),
        precision="fp32",
        batch_size=256,
        width=2,
        prompts=PROMPTS,
        schema=schema,
    )


def driver_seconds(folder: Path, rows: int) -> float:
    """Return the CPU seconds that this process, the driver, spends on a run."""
    image = {"bytes": b"x", "path": None}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path = folder / f"{rows}.parquet"
    pq.write_table(pa.table({"image": pa.array([image] * rows, kind)}), path)
    manifest = open_manifest(str(path))
    schema = output_schema(manifest, (), pairs=PROMPTS.names)
    output = Output(str(folder / f"o-{rows}-{time.time()}"), manifest, {})
    spec = settings(folder, schema, StubTower(0.0), 224)
    plan = ScoringPlan.of(manifest, (), RowSet())
    before = time.process_time()
    with output.start({}):
        run_pipeline(plan, spec, ActorPool(1, 1.0, 1.0), output, RunPolicy())
        passed = output.audit().passed
    seconds = time.process_time() - before
    if not passed:
        raise RuntimeError(f"{rows} rows went in, {len(output.committed().rows)} came out")
    return seconds


#: The columns of a scored row.
SCORED = pa.schema(
    [
        ("manifest_file", pa.string()),
        ("manifest_row", pa.int64()),
        ("uri", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("score", pa.float32()),
        ("scores", pa.struct([("p", pa.float32())])),
        ("margins", pa.struct([("p", pa.float32())])),
    ]
)


def decoded_block(pixels: np.ndarray) -> pa.Table:
    """Return (N, H, W, 3) pixels with the rows that a decoder yields of them."""
    block, height, width, _ = pixels.shape
    texts = {"manifest_file": "m", "uri": "https://example.org/a/long/path/of/an/image.jpg"}
    texts |= {"status": "ok", "_decoded_on": "node"}
    columns: dict[str, Any] = {name: pa.array([text] * block) for name, text in texts.items()}
    columns["error"] = pa.nulls(block, pa.string())
    columns["manifest_row"] = pa.array(range(block), pa.int64())
    columns |= {"width": pa.array([width] * block, pa.int32())}
    columns |= {"height": pa.array([height] * block, pa.int32())}
    columns |= {
        name: pa.array([0.001] * block, pa.float32())
        for name in ("_fetch_seconds", "_decode_seconds")
    }
    return PixelBlock(pa.table(columns), np.arange(block), pixels).to_table()


def busy_share(folder: Path, rows: int, seconds: float) -> float:
    """Return the share of the time in which a tower with pixels at hand was busy."""
    notes = Path(tempfile.mkdtemp(dir=folder))
    spec = settings(folder, SCORED, StubTower(seconds, notes=notes), 224)
    block = call_rows(spec.score, rows)
    pixels = np.random.default_rng(0).integers(0, 256, (block, 224, 224, 3), np.uint8)
    table = decoded_block(pixels)
    set_up_ray_data()
    data = ray.data.from_arrow_refs([ray.put(table)] * (rows // block))
    tower = pinned(spec)
    chain = scored_pixels(data, spec.score, ActorPool(1, 1.0, 1.0), tower, block, rows // block)
    found = sum(len(each) for each in chain.iter_batches(batch_size=None, batch_format="pyarrow"))
    if found != rows // block * block:
        raise RuntimeError(f"{rows // block * block} rows went in, {found} came out")
    busy = StubTower.read(notes, "busy")
    return sum(ended - began for began, ended in busy) / (busy[-1][1] - busy[0][0])


def pool_seconds(folder: Path, actors: int, starting: float) -> float:
    """Return the seconds from the chain's begin until all actors of a pool have started."""
    notes = Path(tempfile.mkdtemp(dir=folder))
    image = {"bytes": b"x", "path": None}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path = folder / "pool.parquet"
    pq.write_table(pa.table({"image": pa.array([image] * 4000 * actors, kind)}), path)
    manifest = open_manifest(str(path))
    schema = output_schema(manifest, (), pairs=PROMPTS.names)
    output = Output(str(folder / f"o-{actors}-{time.time()}"), manifest, {})
    tower = StubTower(0.002, starting, notes)
    spec = settings(folder, schema, tower, 32)
    plan = ScoringPlan.of(manifest, (), RowSet())
    began = time.time()
    with output.start({}):
        run_pipeline(plan, spec, ActorPool(actors, 1.0, 1.0), output, RunPolicy())
    started = StubTower.read(notes, "start")
    if len(started) < actors:
        raise RuntimeError(f"only {len(started)} of {actors} actors started")
    return started[actors - 1][1] - began


@contextmanager
def local_ray(cpus: int, gpus: int) -> Iterator[None]:
    """Start a local Ray with logical CPUs and GPUs."""
    ray.init(num_cpus=cpus, num_gpus=gpus, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=162_000, help="of the longer run")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    short = arguments.rows // 2
    raw: dict[str, list[float]] = {"driver": [], "busy": [], "one": [], "eight": []}
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # So few CPUs that half of the rows, too, are read in blocks as large as any manifest's.
        with local_ray(cpus=3, gpus=1):
            driver_seconds(folder, 2000)  # starts Ray Data's own actors
            for _ in range(arguments.rounds):
                more = driver_seconds(folder, arguments.rows) - driver_seconds(folder, short)
                raw["driver"].append(1e6 * more / (arguments.rows - short))
                raw["busy"].append(busy_share(folder, 40_000, 60e-6))
        with local_ray(cpus=12, gpus=8):  # for 8 actors beside the decoders
            for _ in range(min(3, arguments.rounds)):
                raw["one"].append(pool_seconds(folder, 1, 6.0))
                raw["eight"].append(pool_seconds(folder, 8, 6.0))
    ratio = [many / one for many, one in zip(raw["eight"], raw["one"], strict=True)]
    rows = [
        ["driver's CPU per 1,000 images, ms", spread(raw["driver"], "{:.1f}")],
        ["share of the time in which a tower of 60 us an image is busy", spread(raw["busy"])],
        ["start of an actor of 6 s, s", spread(raw["one"], "{:.1f}")],
        ["start of 8 such actors, s", spread(raw["eight"], "{:.1f}")],
        ["8 actors / one", spread(ratio)],
    ]
    tables = [Table("Driver, actor and pool with stub towers", ["what", "measured"], rows)]
    show(tables)
    save("driver", tables, raw=raw, path=arguments.json)


if __name__ == "__main__":
    main()
