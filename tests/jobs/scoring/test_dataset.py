"""Tests of jobs/scoring/dataset.py, driver.py, actor.py: towers and decoders that fail in real workers."""

from __future__ import annotations

import os
import re
import signal
import struct
import sys
import threading
import time
import zlib
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
import torch
from PIL import Image
from torch import nn

from iqa_core.errors import Status
from iqa_core.fetch.fetcher import Fetcher
from iqa_core.images.decode import Decoded, decode_image
from iqa_core.preprocess import Preprocess
from iqa_core.scoring.features import PromptFeatures
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_reading import DATA
from iqa_core.tables.output import Output
from iqa_core.tables.rows import RowSet
from iqa_core.tables.schema import output_schema
from jobs.scoring import dataset, driver
from jobs.scoring.collector import Collector
from jobs.scoring.dataset import _block_bytes, _slices, block_rows, finished_rows
from jobs.scoring.decode import decode_rows
from jobs.scoring.driver import run_pipeline
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.policy import RunPolicy
from jobs.scoring.pool import ActorPool
from jobs.scoring.settings import StageSettings

PREPROCESS = Preprocess(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
PROMPTS = PromptFeatures(("p",), np.array([[[1, 0], [0, 1]]], dtype=np.float32), 1.0, "digest")


class MeanTower(nn.Module):
    """Features are an image's brightness; red images fail, and so do large batches."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def to_device(self, device, precision):
        return self

    def encode(self, pixels):
        if len(pixels) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (as a GPU reports it)")
        images = torch.from_numpy(np.array(pixels)).float() / 255
        if ((images[..., 0] > 0.9) & (images[..., 1] < 0.1)).all(dim=(1, 2)).any():
            raise RuntimeError("no red images")
        mean = images.mean(dim=(1, 2, 3))
        return nn.functional.normalize(torch.stack([mean, 1 - mean], dim=1), dim=1)


@pytest.fixture
def run(ray_cluster, tmp_path):
    """Score 40 grey images, three of them red, or other ones, by a tower."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for number in range(40):
        colour = (255, 0, 0) if number in (3, 17, 18) else (number * 6,) * 3
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{number}.png")
    path = tmp_path / "m.parquet"

    def run(tower, batch_size, decoder=None, uris=None, stall_minutes=5.0, **options):
        uris = uris or [f"{number}.png" for number in range(40)]
        pq.write_table(pa.table({"uri": uris}), path)
        manifest = open_manifest(str(path))
        schema = output_schema(manifest, (), pairs=PROMPTS.names)
        spec = StageSettings(
            tower=tower,
            fetcher=Fetcher(str(tmp_path), **options),
            preprocess=PREPROCESS,
            decoder=decoder or partial(decode_image, preprocess=PREPROCESS),
            precision="fp32",
            batch_size=batch_size,
            width=2,
            prompts=PROMPTS,
            schema=schema,
            decode_seconds=5.0,
        )
        output = Output(str(tmp_path / "o"), manifest, {})
        with output.start({}):
            plan = ScoringPlan.of(manifest, (), RowSet())
            pool = ActorPool(most=1, cpus=0.5, gpus=0)
            policy = RunPolicy(30, max_error_rate=1, stall_minutes=stall_minutes)
            outcome = run_pipeline(plan, spec, pool, output, policy)
        parts = [pq.read_table(path) for path in (tmp_path / "o").glob("part-*.parquet")]
        return outcome, pa.concat_tables(parts).sort_by("manifest_row").to_pylist()

    yield run
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def stall_minutes(ray_cluster):
    """Longer than an actor takes to start, also on a machine that is slow or has other work."""

    def import_torch():
        import torch  # what takes longest of an actor's start

        return torch.__version__

    began = time.monotonic()
    ray.get(ray.remote(max_calls=1)(import_torch).remote())  # a process of its own
    return max(24, 6 * (time.monotonic() - began)) / 60


@pytest.mark.ray
def test_images_that_the_model_fails_on_cost_only_themselves(run):
    outcome, rows = run(MeanTower(most=3), batch_size=16)
    assert outcome.statuses == {"ok": 37, "model_error": 3}
    assert outcome.out_of_memory > 0
    for number, row in enumerate(rows):
        if number in (3, 17, 18):
            assert row["status"] == "model_error"
            assert row["error"] == "RuntimeError: no red images"
            assert row["score"] is None
        else:
            mean = number * 6 / 255
            cosines = np.array([mean, 1 - mean]) / np.hypot(mean, 1 - mean)
            assert row["score"] == pytest.approx(
                1 / (1 + np.exp(cosines[1] - cosines[0])), abs=1e-6
            )


class Web(BaseHTTPRequestHandler):
    """Answers by what is asked for."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - shared on purpose

    def do_GET(self):
        code, _, name = self.path.strip("/").partition("/")
        if name == "slow":
            time.sleep(4)
        content = self.files.get(name, b"")
        self.send_response(int(code))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.mark.ray
def test_every_status_of_the_table(run, tmp_path):
    encoded = (tmp_path / "5.png").read_bytes()
    header = encoded[:16] + struct.pack(">II", 40_000, 40_000) + encoded[24:29]
    header += zlib.crc32(header[12:29]).to_bytes(4, "big")
    Web.files = {
        "good": encoded,
        "red": (tmp_path / "3.png").read_bytes(),
        "cut": encoded[:-30],
        "page": b"<html>no image</html>",
        "bomb": header + encoded[33:],
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        at = f"http://127.0.0.1:{server.server_port}"
        wanted = {
            "ok": f"{at}/200/good",
            "invalid_row": None,
            "denied": "http://127.0.0.2/a.png",
            "not_found": f"{at}/404",
            "forbidden": f"{at}/403",
            "throttled": f"{at}/429",
            "timeout": f"{at}/200/slow",
            "network": f"{at}/500",
            "empty": f"{at}/200/nothing",
            "unsupported": f"{at}/200/page",
            "decode_error": f"{at}/200/cut",
            "too_large": f"{at}/200/bomb",
            "model_error": f"{at}/200/red",
        }
        # Of damage in the manifest itself: test_damaged.py.
        assert {*wanted, "unreadable"} == {status.value for status in Status}
        uris = list(wanted.values())
        _, rows = run(MeanTower(16), 16, uris=uris, prefixes=(at,), timeout=1.5, retries=0)
        server.shutdown()
        thread.join()
    found = {row["status"]: row["uri"] for row in rows}
    assert found == wanted
    for row in rows:
        assert (row["error"] is None) == (row["score"] is not None) == (row["status"] == "ok")


class LostDevice(MeanTower):
    """Loses its device, as CUDA's errors do for the rest of a process: once, or at a red image."""

    def __init__(self, marker=None):
        super().__init__(most=40)
        self.marker = marker
        self.lost = False

    def encode(self, pixels):
        images = np.array(pixels)
        red = ((images[..., 0] == 255) & (images[..., 1] == 0)).all(axis=(1, 2)).any()
        if self.marker is None:
            self.lost |= bool(red)
        elif not self.marker.exists():
            self.marker.touch()
            self.lost = True
        if self.lost:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        mean = torch.from_numpy(images).float().mean(dim=(1, 2, 3)) / 255
        return nn.functional.normalize(torch.stack([mean, 1 - mean], dim=1), dim=1)


@pytest.mark.ray
def test_an_actor_that_lost_its_device_is_replaced(run, tmp_path):
    outcome, rows = run(LostDevice(tmp_path / "lost"), batch_size=8)
    assert (tmp_path / "lost").exists()
    assert outcome.statuses == {"ok": 40}
    assert len(rows) == 40


@pytest.mark.ray
def test_rows_that_always_break_the_device_are_given_up(run):
    outcome, rows = run(LostDevice(), batch_size=2)
    assert outcome.statuses["ok"] + outcome.statuses["model_error"] == len(rows) == 40
    assert rows[0]["status"] == "ok"
    assert rows[17]["status"] == "model_error"
    assert "CUDA error" in rows[17]["error"]


class HangingTower(MeanTower):
    """Never comes back from its second batch."""

    def __init__(self, calls):
        super().__init__(most=40)
        self.calls = calls

    def encode(self, pixels):
        with self.calls.open("a") as file:
            file.write(".")
        if len(self.calls.read_text()) == 2:
            time.sleep(600)
        return super().encode(pixels)


@pytest.mark.ray
def test_an_execution_that_stands_still_is_begun_again(run, stall_minutes, tmp_path, capsys):
    grey = [f"{number}.png" for number in range(40) if number not in (3, 17, 18)]
    tower = HangingTower(tmp_path / "calls")
    outcome, rows = run(tower, batch_size=8, uris=grey, stall_minutes=stall_minutes)
    assert outcome.statuses == {"ok": len(grey)}
    assert [row["status"] for row in rows] == ["ok"] * len(grey)  # each once
    assert outcome.stalls > 0
    deadline = time.monotonic() + 30
    while ray.available_resources()["CPU"] < ray.cluster_resources()["CPU"] - 0.1:
        assert time.monotonic() < deadline, "the actor that hung is still there"
        time.sleep(0.5)
    said = capsys.readouterr().err
    stages = r"MapBatches\(ImageActor\): \d unfinished"
    still = re.escape(f"nothing moved for {stall_minutes:g} min")
    assert re.search(rf"{still} \({stages}\): what is left is begun again\n", said)


@pytest.mark.ray
def test_rows_that_do_not_come_are_begun_again(run, capsys, monkeypatch):
    """As where a task is run again in a new worker, and its blocks end at other rows."""

    def another(table):
        rows = table.column("manifest_row")
        lost = pc.and_(pc.greater_equal(rows, 5), pc.less(rows, 10))
        kept = table.filter(pc.invert(lost))
        return pa.concat_tables([kept, kept.slice(0, 3)])

    chains = []

    def scored_rows(*arguments):
        chain = dataset.scored_rows(*arguments)
        chains.append(chain)
        return chain.map_batches(another, batch_format="pyarrow") if len(chains) == 1 else chain

    monkeypatch.setattr(driver, "scored_rows", scored_rows)
    outcome, rows = run(MeanTower(most=40), batch_size=8)
    assert [row["manifest_row"] for row in rows] == [*range(40)]
    assert outcome.rows == 40
    assert outcome.stalls == 1
    assert len(chains) == 2
    assert "5 rows did not come: what is left is begun again" in capsys.readouterr().err


@pytest.mark.ray
def test_other_work_that_holds_the_cluster_is_waited_for(run, stall_minutes, capsys):
    class Holder:
        def hold(self):
            return os.getpid()

    holder = ray.remote(Holder).options(num_cpus=ray.cluster_resources()["CPU"]).remote()
    ray.get(holder.hold.remote(), timeout=100)
    full_since = time.monotonic()
    while time.monotonic() < full_since + 3:  # Ray's view is some seconds old, and has gaps
        if ray.available_resources().get("CPU", 0.0) > 0.1:
            full_since = time.monotonic()
        time.sleep(0.1)
    threading.Timer(60 * stall_minutes + 5, ray.kill, [holder]).start()
    grey = [f"{number}.png" for number in range(20, 40)]
    outcome, _ = run(MeanTower(most=40), batch_size=8, uris=grey, stall_minutes=stall_minutes)
    assert outcome.statuses == {"ok": 20}
    assert outcome.stalls == 0
    assert "waiting for room for a scoring actor: other work on the cluster holds" in (
        capsys.readouterr().err
    )


def fragile(data):
    """Decode, but crash on one image as a C library does, and hang on another."""
    image = decode_image(data, PREPROCESS)
    if image.pixels[0, 0, 0] == 60:
        os.kill(os.getpid(), signal.SIGSEGV)
    if image.pixels[0, 0, 0] == 72:
        time.sleep(600)
    return image


@pytest.mark.ray
def test_files_that_crash_or_hang_the_decoder_cost_only_themselves(run):
    outcome, rows = run(MeanTower(most=40), batch_size=40, decoder=fragile)
    assert outcome.statuses == {"ok": 35, "model_error": 3, "decode_error": 2}
    assert rows[12]["status"] == "decode_error"
    assert rows[12]["error"] == "decoding took more than 5 s: given up"
    assert rows[10]["status"] == "decode_error"
    assert rows[10]["error"] == "the decoder crashed on this file (exit code -11)"


@pytest.mark.ray
@pytest.mark.parametrize(
    ("images", "preprocess", "rows"),
    [(16, None, 2), (3, None, 1), (400, None, 32), (16, PREPROCESS, 16), (400, PREPROCESS, 32)],
)
def test_actors_share_a_short_run(ray_cluster, tmp_path, images, preprocess, rows):
    plan, spec = planned(tmp_path, images, preprocess)
    assert block_rows(plan, spec, ActorPool(most=2, cpus=1.0, gpus=0)) == rows
    assert finished_rows(plan, spec, ActorPool(most=2, cpus=1.0, gpus=0)) == rows


@pytest.mark.ray
def test_the_first_block_of_an_actor_is_small(run, monkeypatch):
    sizes = []
    add = Collector.add

    def noted(self, table):
        sizes.append(len(table))
        add(self, table)

    monkeypatch.setattr(Collector, "add", noted)
    uris = [f"{number % 40}.png" for number in range(160)]
    outcome, rows = run(MeanTower(most=40), batch_size=4, uris=uris)
    assert [row["manifest_row"] for row in rows] == [*range(160)]
    assert outcome.rows == 160
    assert sizes[0] == 4
    assert min(sizes[1:-1]) > 4


def planned(folder, images, preprocess):
    """Return the plan and the settings of a run over so many images."""
    pq.write_table(pa.table({"uri": ["a.png"] * images}), folder / "m.parquet")
    plan = ScoringPlan.of(open_manifest(str(folder / "m.parquet")), (), RowSet())
    spec = StageSettings(
        tower=MeanTower(most=40),
        fetcher=Fetcher(str(folder)),
        preprocess=preprocess,
        decoder=decode_image,
        precision="fp32",
        batch_size=32,
        width=2,
        prompts=PROMPTS,
        schema=output_schema(plan.manifest, (), pairs=PROMPTS.names),
    )
    return plan, spec


@pytest.mark.ray
@pytest.mark.parametrize("side", [224, 336])
def test_decoders_of_a_large_run_yield_whole_calls_of_gpus(ray_cluster, tmp_path, side):
    preprocess = replace(PREPROCESS, size=(side, side))
    plan, spec = planned(tmp_path, 1_000_000, preprocess)
    pool = ActorPool(most=2, cpus=1.0, gpus=1.0)
    rows = block_rows(plan, spec, pool)
    assert 3000 < rows <= 4096
    call = finished_rows(plan, spec, pool)
    assert rows % call == 0
    # Ray Data would split larger ones.
    assert 128 * 2**20 < call * spec.score.row_bytes() < dataset._TARGET_BYTES
    image = Decoded(np.zeros((side, side, 3), np.uint8), side, side)
    columns = {"manifest_file": ["m"] * rows, "manifest_row": range(rows)}
    columns[DATA] = pa.array([b"x"] * rows, pa.large_binary())
    decode = replace(spec.decode, decoder=lambda _: image)
    table = pa.table({**columns, "uri": pa.nulls(rows, pa.string())})
    blocks = decode_rows(table, settings=decode, most_bytes=_block_bytes(spec.score))
    assert {len(block) for block in blocks} == {call}


@pytest.mark.ray
def test_a_plan_of_many_slices_is_read_slice_by_slice(ray_cluster, tmp_path):
    for number in range(450):
        pq.write_table(pa.table({"uri": ["a.png"]}), tmp_path / f"{number}.parquet")
    plan = ScoringPlan.of(open_manifest(str(tmp_path)), (), RowSet())
    assert len(plan.slices) == 450
    blocks = list(_slices(plan.slices).iter_batches(batch_size=None, batch_format="pyarrow"))
    assert [len(block) for block in blocks] == [1] * 450
    files = [block.column("file").to_pylist()[0] for block in blocks]
    assert sorted(files) == sorted(piece.file for piece in plan.slices)


@pytest.mark.ray
def test_blocks_without_any_image(run):
    outcome, rows = run(MeanTower(40), 8, uris=[f"none-{number}.png" for number in range(20)])
    assert outcome.statuses == {"not_found": 20}
    assert [row["score"] for row in rows] == [None] * 20
