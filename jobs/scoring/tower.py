"""The image tower in a scoring actor: decoded rows in, scored rows out."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from iqa_core.clip.encoder import check_offers
from iqa_core.columns import CONTENT_HASH, DESCRIPTOR, DESCRIPTOR_WIDTH, EMBEDDING, URI, VIEWS
from iqa_core.errors import Status
from iqa_core.redaction import error_line, redact
from iqa_core.scoring.columns import crop_score_columns, score_columns
from iqa_core.scoring.device_jpeg import check_torchcodec
from iqa_core.scoring.encode import DEFAULT_PIXEL_BUDGET, encode_images
from iqa_core.tables.feature_cache import feature_column
from iqa_core.tables.unscored import unscored_as_errors

from ..ray_errors import NodeError, this_node
from .batch_size import fastest_batch
from .device_decode import decoded_block
from .isolation import attempt
from .pixels import EncodedBlock, PixelBlock
from .repeats import SeenFeatures
from .stage_columns import (
    CONTENT_DIGEST,
    DECODE_SECONDS,
    DECODED_ON,
    DESCRIPTION,
    DEVICE,
    FETCH_SECONDS,
    MODEL_SECONDS,
    OUT_OF_MEMORY,
    REPEATED,
    repeated,
)

if TYPE_CHECKING:
    from iqa_core.clip.encoder import ImageEncoder

    from .pool import ActorPool
    from .settings import ScoreSettings

__all__ = ["ScoringTower"]

#: Devices that a block may break before its rows become model errors.
_DEVICE_LOSSES = 2


class ScoringTower:
    """Holds the image tower on a device. Threads may score at the same time; the device serves one.

    Args:
        tower: The pickled reference of the image tower. Pickled, it is pinned in the object store
            for as long as the driver lives, so that a restarted actor finds it.
        settings: How pixels become scores.
        pool: The pool of scoring actors that this process belongs to.

    Attributes:
        settings: As given.
        seen: Features of images with which later ones may share their bytes; None encodes each.
    """

    def __init__(self, tower: bytes, settings: ScoreSettings, pool: ActorPool) -> None:
        torch.set_num_threads(max(1, int(pool.cpus)))
        self.settings = settings
        self.seen = SeenFeatures() if settings.dedupe else None
        self.failure: NodeError | None = None
        self.device_is_lost = False
        # For all batches of a block: two passes at once would need twice the memory, and two blocks whose
        # batches alternate would end at the same time, with nothing left for the device.
        self._turn = threading.Lock()
        node, name = this_node()
        device = self._device = "cuda" if pool.gpus else "cpu"
        try:
            if settings.jpegs:
                check_torchcodec()
            self.tower: ImageEncoder = ray.get(ray.cloudpickle.loads(tower))
            self.tower = self.tower.to_device(device, settings.precision)
            if settings.jpegs:
                check_offers(self.tower, "takes_tensors", "--decode gpu")
            if settings.compile:
                check_offers(self.tower, "compile_for", "--compile")
            self.batch_size = settings.batch_rows
            if pool.gpus and settings.batch_size is None and settings.size is not None:
                self.batch_size = fastest_batch(self.tower.encode, settings.size)
            if settings.compile:
                self.tower.compile_for(self.batch_size)  # type: ignore[attr-defined]
        except Exception as error:
            # Raised by the first call instead of here: Ray keeps only the text of what is raised here.
            lines = str(error).splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0]}".rstrip(".: ")
            self.failure = NodeError(f"a scoring actor could not start on {name}: {reason}", node)
        self.device = f"{_device_name(device)} of {name}, process {os.getpid()}"

    def check(self) -> None:
        """Raise the reason if the tower could not be set up.

        Raises:
            NodeError: With the node and the reason.
        """
        if self.failure is not None:
            raise self.failure

    def score(self, block: PixelBlock | EncodedBlock) -> pa.Table:
        """Return the rows of a block with their scores, in the columns of the output and of the run."""
        began = time.perf_counter()
        if isinstance(block, EncodedBlock):
            block = self._decoded(block)
        rows = len(block.rows)
        copies = self.settings.copies
        repeats = None
        if self.seen:
            block, repeats = self.seen.split(block)
        encoded, failures, halved = self._encode(block)
        failed = {int(block.places[image // copies]): why for image, why in failures.items()}
        features = np.full((rows, copies * self.settings.width), np.nan, dtype=np.float32)
        features[block.places] = encoded.reshape(-1, features.shape[1])
        if self.seen and repeats:
            self.seen.remember(repeats, block, features)
            repeats.fill(features)
            failed = repeats.failed(failed)
        columns = {name: block.rows.column(name) for name in block.rows.column_names}
        columns[URI] = _without_secrets(columns[URI])
        if self.settings.hashes:
            columns[CONTENT_HASH] = columns[CONTENT_DIGEST]
        if self.settings.descriptors:
            columns[DESCRIPTOR] = _descriptor_column(columns[DESCRIPTION])
        columns |= self._status_columns(block, failed)
        columns |= _result_columns(features, self.settings)
        seconds = (time.perf_counter() - began) / max(1, rows)
        columns |= {
            MODEL_SECONDS: pa.array(np.full(rows, seconds, np.float32)),
            OUT_OF_MEMORY: pa.array(np.where(np.arange(rows) == 0, halved, 0), pa.int32()),
            DEVICE: repeated(self.device, rows),
        }
        schema = pa.schema([*self.settings.schema, *_MEASURED])
        if repeats:
            columns[REPEATED] = pa.array(repeats.mask(rows))
            schema = schema.append(pa.field(REPEATED, pa.bool_()))
        table = pa.table({field.name: columns[field.name] for field in schema}).cast(schema)
        return unscored_as_errors(table)  # also in the sink; here so that the run's counts agree

    def _decoded(self, block: EncodedBlock) -> PixelBlock:
        """Return a block of pixels, on the device while it works."""
        jpegs, seconds = self.settings.jpegs, self.settings.decode_seconds
        assert jpegs is not None  # noqa: S101 - blocks are left encoded for it
        try:
            return decoded_block(block, jpegs, self._device, seconds)
        except torch.AcceleratorError as error:
            self._give_up_device(error)
        return decoded_block(block, jpegs, "cpu", seconds)

    def _encode(self, block: PixelBlock) -> tuple[np.ndarray, dict[int, str], int]:
        """Return features, failures by image, and how often memory was too small."""
        halved = 0
        given_up = False

        def give_up_device(error: torch.AcceleratorError) -> None:
            nonlocal given_up
            if not given_up:
                self._give_up_device(error)
            given_up = True

        def encode(pixels: np.ndarray) -> torch.Tensor:
            nonlocal halved
            try:
                return self.tower.encode(pixels)
            except torch.OutOfMemoryError:
                halved += 1  # `encode_images` halves the batch
                raise
            except torch.AcceleratorError as error:
                give_up_device(error)
                raise RuntimeError(error_line(error)) from error

        settings = self.settings
        budget = DEFAULT_PIXEL_BUDGET
        if settings.size is not None:  # all images are as large, so the batch says what is wanted
            budget = max(budget, self.batch_size * math.prod(settings.size))
        try:
            encoded, failed = encode_images(
                encode,
                block.pixels,
                settings.width,
                batch_size=self.batch_size,
                pixel_budget=budget,
                turn=self._turn,
            )
        except torch.AcceleratorError as error:
            give_up_device(error)
            images = len(block.pixels)
            encoded = np.full((images, settings.width), np.nan, dtype=np.float32)
            failed = dict.fromkeys(range(images), f"AcceleratorError: {error_line(error)}")
        return encoded, failed, halved

    def _give_up_device(self, error: torch.AcceleratorError) -> None:
        """End this process, unless a block that was tried several times broke the device itself.

        After such an error a process can't use the device any more, and every image would fail. Another
        actor retries the block.
        """
        if self.device_is_lost or attempt() < _DEVICE_LOSSES:
            print(f"the device is lost: {error_line(error)}", flush=True)  # in the actor's log
            os._exit(71)
        self.device_is_lost = True

    def _status_columns(self, block: PixelBlock, failed: dict[int, str]) -> dict[str, pa.Array]:
        if not failed:
            return {}
        columns = {name: block.rows.column(name).to_pylist() for name in ("status", "error")}
        for place, reason in failed.items():
            columns["status"][place] = Status.MODEL_ERROR.value
            columns["error"][place] = reason
        return {name: pa.array(values, pa.string()) for name, values in columns.items()}


_MEASURED = [
    pa.field(FETCH_SECONDS, pa.float32()),
    pa.field(DECODE_SECONDS, pa.float32()),
    pa.field(MODEL_SECONDS, pa.float32()),
    pa.field(OUT_OF_MEMORY, pa.int32()),
    pa.field(DECODED_ON, pa.dictionary(pa.int32(), pa.string())),
    pa.field(DEVICE, pa.dictionary(pa.int32(), pa.string())),
]


def _device_name(device: str) -> str:
    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return device.upper() if device == "cpu" else device


def _descriptor_column(descriptions: pa.ChunkedArray) -> pa.Array:
    """Return descriptors as lists of numbers, null where there are none."""
    given = descriptions.combine_chunks()
    missing = given.is_null()
    filled = b"".join(each or bytes(DESCRIPTOR_WIDTH) for each in given.to_pylist())
    flat = pa.array(np.frombuffer(filled, np.int8))
    return pa.FixedSizeListArray.from_arrays(flat, DESCRIPTOR_WIDTH, mask=missing)


def _without_secrets(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return URIs without passwords and signatures; a row's identity suffices to find its image."""
    if not pc.any(pc.match_substring_regex(uris, "[@?&;]")).as_py():
        return uris
    redacted = [uri and redact(uri) for uri in uris.to_pylist()]
    return pa.chunked_array([pa.array(redacted, pa.string())])


def _result_columns(features: np.ndarray, settings: ScoreSettings) -> dict[str, pa.Array]:
    """Return the columns made from the features of rows and of their degraded copies."""
    # A row whose copy or crop failed has failed: its columns are all present or all null.
    features = np.where(np.isfinite(features).all(axis=1, keepdims=True), features, np.nan)
    own = features[:, : settings.width]
    columns: dict[str, pa.Array] = {}
    if settings.prompts is not None and settings.crops > 1:
        views = features.reshape(len(features), settings.crops, settings.width)
        columns |= crop_score_columns(views, settings.prompts)
    elif settings.prompts is not None:
        columns |= score_columns(own, settings.prompts)
    if EMBEDDING in settings.schema.names:
        columns[EMBEDDING] = feature_column(own)
    if settings.views:
        columns[VIEWS] = feature_column(features[:, settings.width :])
    return columns
