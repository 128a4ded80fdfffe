"""One GPU: towers alone, the scoring actor that holds one, half precision, and decoding on the device.

    python -m benchmarks.gpu [--models ViT-B-32 ViT-L-14 RN50] [--seconds 10] [--rounds 3] [--json FILE]

* tower: one batch on the device, encoded again and again; as it is, and by torch.compile.
* actor: blocks of pixels lie ready in shared memory. Images a second from the first block that a run's
  scoring actor has finished to its last, of the tower alone as a share, and how busy the card was.
* precision: scores of `tiny` in half precision against fp32, of the photographs.
* decoding: JPEGs to pixels of the model's size as `--decode gpu` does, against `fast` on one core; the
  differences of both to `exact`.

Weights are random but for `tiny`. The size of a batch is what an actor finds fastest, or `--batch`. With
`--device cpu` the code runs without a card; the actor's blocks of a thousand images then take half an hour.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray
import ray.data
import torch
from PIL import Image

from benchmarks.driver import SCORED, decoded_block, local_ray, settings
from benchmarks.photos import files, photographs
from benchmarks.results import Table, save, show, spread
from benchmarks.towers import MEAN, STD, random_clip
from iqa_core import Scorer
from iqa_core.clip.image_tower import ImageTower
from iqa_core.clip.load import load_towers
from iqa_core.images.decode import decode_image
from iqa_core.images.encoded import EncodedJpeg, read_for_device
from iqa_core.preprocess import Preprocess
from iqa_core.scoring.device_jpeg import DeviceDecoder
from iqa_core.scoring.features import PromptFeatures
from jobs.scoring.batch_size import fastest_batch
from jobs.scoring.dataset import call_rows, pinned, scored_pixels, set_up_ray_data
from jobs.scoring.pool import ActorPool

SIZES = {"640 x 480": (640, 480), "1200 x 900": (1200, 900), "4000 x 3000": (4000, 3000)}


def tower_of(name: str) -> ImageTower:
    """Return a tower on the CPU with random weights."""
    visual = random_clip(name).visual
    side = visual.image_size
    size = (side, side) if isinstance(side, int) else tuple(side)
    return ImageTower(visual, Preprocess(size, MEAN, STD), width=visual.output_dim, digest=name)


def noise(rows: int, size: tuple[int, int]) -> np.ndarray:
    """Return (N, H, W, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (rows, *size, 3), np.uint8)


def images_a_second(work: Callable[[], int], seconds: float) -> float:
    """Repeat work, which returns its images once they are done; the first time does not count."""
    work()
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        images += work()
    return images / (time.perf_counter() - began)


def tower_rate(tower: ImageTower, batch: int, seconds: float) -> float:
    """Return the images a second of a tower whose pixels are on its device."""
    with (
        torch.inference_mode()
    ):  # pixels are made as the tower's own are: a compiled one takes no others
        pixels = torch.from_numpy(noise(batch, tower.preprocess.size)).to(tower.device)

    def work() -> int:
        for _ in range(4):
            features = tower.encode(pixels)
        features.cpu()
        return 4 * batch

    return images_a_second(work, seconds)


@contextmanager
def utilisation(found: list[float]) -> Iterator[None]:
    """Append the share of the time, 0 to 100, in which the card was busy, about every second."""
    query = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(1.0):
            answer = subprocess.run(query, capture_output=True, text=True, check=True)
            found.append(float(answer.stdout.split()[0]))

    thread = threading.Thread(target=sample, daemon=True)
    if torch.cuda.is_available():
        thread.start()
    yield
    ended.set()
    if thread.is_alive():
        thread.join()


def actor_rate(
    tower: ImageTower, batch: int, rate: float, seconds: float, pool: ActorPool, *, compiled: bool
) -> tuple[float, list[float]]:
    """Return the images a second of a scoring actor, and samples of the card's utilisation.

    Args:
        tower: On the CPU.
        batch: Images of a forward pass.
        rate: Images a second to expect.
        seconds: To measure about so long.
        pool: One actor.
        compiled: Whether the actor compiles its tower.
    """
    sides = np.random.default_rng(1).normal(size=(1, 2, tower.width)).astype(np.float32)
    prompts = PromptFeatures(
        ("p",), sides / np.linalg.norm(sides, axis=-1, keepdims=True), 100.0, tower.digest
    )
    with tempfile.TemporaryDirectory() as folder:
        spec = settings(Path(folder), SCORED, tower, tower.preprocess.size[0])
    spec = replace(
        spec,
        precision="auto",
        batch_size=batch,
        width=tower.width,
        prompts=prompts,
        compile=compiled,
    )
    block = call_rows(spec.score, 1 << 20)
    blocks = max(6, round(rate * seconds / block))
    set_up_ray_data()
    ready = ray.put(decoded_block(noise(block, tower.preprocess.size)))
    data = ray.data.from_arrow_refs([ready] * blocks)
    chain = scored_pixels(data, spec.score, pool, pinned(spec), block, blocks)
    busy: list[float] = []
    finished: list[tuple[float, int]] = []
    with utilisation(busy):
        for each in chain.iter_batches(batch_size=None, batch_format="pyarrow"):
            if not finished:
                busy.clear()  # of the start
            finished.append((time.perf_counter(), len(each)))
    rows = sum(count for _, count in finished)
    if rows != block * blocks:
        raise RuntimeError(f"{block * blocks} rows went in, {rows} came out")
    return (rows - finished[0][1]) / (finished[-1][0] - finished[0][0]), busy


def precision_table(device: str) -> Table:
    """Return the differences of tiny's scores in half precision to those in fp32."""
    photos: list[Image.Image] = photographs()
    scores = {
        precision: Scorer("tiny", device=device, precision=precision).score(photos).score
        for precision in ("fp32", "fp16", "bf16")
    }
    rows = []
    for precision in ("fp16", "bf16"):
        difference = np.abs(scores[precision] - scores["fp32"])
        rows.append([precision, f"{difference.mean():.5f}", f"{difference.max():.5f}"])
    return Table("Scores of tiny against fp32", ["precision", "mean", "max"], rows)


def decode_row(name: str, device: str, seconds: float) -> list[str]:
    """Return the row of one size of JPEGs."""
    towers = load_towers("tiny")
    size, tower = towers.preprocess, towers.image.to_device(device)
    data = files(SIZES[name])
    left = [read_for_device(each, size) for each in data]
    images = [each for each in left if isinstance(each, EncodedJpeg)]
    if len(images) < len(data):
        raise RuntimeError(f"{len(data) - len(images)} of {len(data)} JPEGs are of no common kind")
    decoder = DeviceDecoder(size)
    repeated = images * max(1, 64 // len(images))

    def on_device() -> int:
        last = decoder.decode(repeated, device)[-1]
        torch.as_tensor(last).cpu()
        return len(repeated)

    def on_cpu() -> int:
        for each in data:
            decode_image(each, size)
        return len(data)

    rates = [images_a_second(work, seconds) for work in (on_device, on_cpu)]
    exact = np.stack([decode_image(each, size, mode="exact").pixels for each in data])
    found = np.stack(
        [torch.as_tensor(each).cpu().numpy() for each in decoder.decode(images, device)]
    )
    fast = np.stack([decode_image(each, size).pixels for each in data])
    cells = [name, f"{rates[0]:,.0f}", f"{rates[1]:,.0f}", f"{rates[0] / rates[1]:.1f}"]
    features = tower.encode(exact)
    for pixels in (found, fast):
        difference = np.abs(pixels.astype(int) - exact)
        cosine = (tower.encode(pixels) * features).sum(dim=1).min().item()
        cells += [f"{difference.mean():.4f}, {difference.max()}", f"{cosine:.5f}"]
    return cells


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["ViT-B-32", "ViT-L-14", "RN50"])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, help="images of a forward pass (default: the fastest)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device, seconds = arguments.device, arguments.seconds
    pool = ActorPool(1, 1.0, 1.0 if device == "cuda" else 0.0)
    rows, raw = [], {}
    with local_ray(cpus=2, gpus=int(pool.gpus)):
        for name in arguments.models:
            tower = tower_of(name).to_device(device)
            batch = arguments.batch or fastest_batch(tower.encode, tower.preprocess.size)
            for compiled in (False, True):
                if compiled:
                    tower.compile_for(batch)
                alone = [tower_rate(tower, batch, seconds) for _ in range(arguments.rounds)]
                rate = statistics.median(alone)
                actor: list[float] = []
                busy: list[float] = []
                for _ in range(arguments.rounds):
                    measured, samples = actor_rate(
                        tower_of(name), batch, rate, seconds, pool, compiled=compiled
                    )
                    actor.append(measured)
                    busy += samples
                share = [each / rate for each in actor]
                label = f"{name}, compiled" if compiled else name
                raw[label] = {"batch": batch, "alone": alone, "actor": actor, "busy": busy}
                rows.append(
                    [
                        label,
                        str(batch),
                        spread(alone, "{:,.0f}"),
                        spread(actor, "{:,.0f}"),
                        spread(share),
                        f"{statistics.mean(busy):.0f} %" if busy else "-",
                    ]
                )
            del tower
            torch.cuda.empty_cache()
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    columns = [
        "model",
        "batch",
        "tower, images/s",
        "actor, images/s",
        "actor / tower",
        "card is busy",
    ]
    decoding = [
        "JPEG", "device, images/s", "fast on a core", "ratio", "pixels: mean, max", "cosine, least",
        "fast: pixels", "fast: cosine",
    ]  # fmt: skip
    tables = [
        Table(f"Towers and actors on {card}", columns, rows),
        precision_table(device),
        Table(
            f"Decoding on {card}, and differences to exact",
            decoding,
            [decode_row(name, device, seconds) for name in SIZES],
        ),
    ]
    show(tables)
    save("gpu", tables, raw=raw, path=arguments.json)


if __name__ == "__main__":
    main()
