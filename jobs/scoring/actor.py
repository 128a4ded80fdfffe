"""The Ray actor that holds the image tower: pixels in, scores out."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
import torch

from iqa_core.columns import EMBEDDING, HEIGHT, IDENTITY, URI, VIEWS, WIDTH
from iqa_core.errors import Status
from iqa_core.redaction import redact
from iqa_core.scoring.columns import score_columns
from iqa_core.scoring.encode import encode_images
from iqa_core.tables.feature_cache import feature_column
from iqa_core.tables.unscored import unscored_as_errors

from ..ray_errors import NodeError, this_node
from .stage_columns import (
    DECODE_SECONDS,
    DECODED_ON,
    DEVICE,
    FETCH_SECONDS,
    MODEL_SECONDS,
    OUT_OF_MEMORY,
    PIXELS,
)

if TYPE_CHECKING:
    from iqa_core.clip.encoder import ImageEncoder

    from .pool import ActorPool
    from .settings import ScoreSettings

__all__ = ["TowerActor"]

#: Devices that a block may break before its rows become model errors.
_DEVICE_LOSSES = 2


class TowerActor:
    """Holds the image tower and scores blocks of pixels (a Ray actor).

    Args:
        tower: The pickled reference of the image tower. Pickled, it is pinned in the object store
            for as long as the driver lives, so that a restarted actor finds it.
        settings: How pixels become scores.
        pool: The pool that this actor belongs to.
        losses: Handle of the run's :class:`jobs.scoring.device_losses.DeviceLosses`.
    """

    def __init__(
        self,
        tower: bytes,
        settings: ScoreSettings,
        pool: ActorPool,
        losses: Any,  # noqa: ANN401 - an actor handle has no static type
    ) -> None:
        torch.set_num_threads(max(1, int(pool.cpus)))
        self.settings = settings
        self.losses = losses
        self.block = ""
        self.out_of_memory = 0
        self.failure: NodeError | None = None
        node, name = this_node()
        device = "cuda" if pool.gpus else "cpu"
        try:
            self.tower: ImageEncoder = ray.get(ray.cloudpickle.loads(tower))
            self.tower = self.tower.to_device(device, settings.precision)
        except Exception as error:
            # Raised by the first call instead of here: Ray keeps only the text of what is raised here.
            lines = str(error).splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0]}".rstrip(".: ")
            self.failure = NodeError(f"a scoring actor could not start on {name}: {reason}", node)
        self.device = f"{_device_name(device)} of {name}, process {os.getpid()}"

    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace pixels by scores.

        Raises:
            NodeError: If this actor could not start.
        """
        if self.failure is not None:
            raise self.failure
        self.out_of_memory = 0
        self.block = "-".join(str(table.column(name)[0]) for name in IDENTITY) if table else ""
        began = time.perf_counter()
        places, images = self._images(table)
        copies = 1 + self.settings.views
        shape = (len(table) * copies, self.settings.width)
        features = np.full(shape, np.nan, dtype=np.float32)
        status = table.column("status").to_pylist()
        error = table.column("error").to_pylist()
        for start in range(0, len(images), self.settings.batch_size):
            stop = start + self.settings.batch_size
            encoded, failed = encode_images(self._encode, images[start:stop], self.settings.width)
            features[places[start:stop]] = encoded
            for position, reason in failed.items():
                place = places[start + position] // copies
                status[place], error[place] = Status.MODEL_ERROR.value, reason
        features = features.reshape(len(table), -1)
        columns = {name: table.column(name) for name in table.column_names if name != PIXELS}
        # A signed URI gives access to the image; the row's identity suffices to find it.
        uris = [uri and redact(uri) for uri in table.column(URI).to_pylist()]
        columns[URI] = pa.array(uris, pa.string())
        columns |= {"status": pa.array(status, pa.string()), "error": pa.array(error, pa.string())}
        columns |= _result_columns(features, self.settings)
        columns |= self._measurements(len(table), time.perf_counter() - began)
        schema = pa.schema([*self.settings.schema, *_MEASURED])
        rows = pa.table({field.name: columns[field.name] for field in schema}).cast(schema)
        return unscored_as_errors(rows)  # also in the sink; here so that the run's counts agree

    def _measurements(self, rows: int, seconds: float) -> dict[str, pa.Array]:
        halved = [self.out_of_memory] + [0] * (rows - 1)
        return {
            MODEL_SECONDS: pa.array([seconds / max(1, rows)] * rows, pa.float32()),
            OUT_OF_MEMORY: pa.array(halved[:rows], pa.int32()),
            DEVICE: pa.array([self.device] * rows, pa.string()),
        }

    def _encode(self, pixels: np.ndarray) -> torch.Tensor:
        try:
            features: torch.Tensor = self.tower.encode(pixels)
        except torch.OutOfMemoryError:
            self.out_of_memory += 1  # `encode_images` halves the batch
            raise
        except torch.AcceleratorError:
            # After such an error this process can't use the device any more, and every image would
            # fail. Another actor retries these rows, unless they broke several devices.
            if ray.get(self.losses.add.remote(self.block)) <= _DEVICE_LOSSES:
                os._exit(71)
            raise
        return features

    def _images(self, table: pa.Table) -> tuple[list[int], list[np.ndarray]]:
        places: list[int] = []
        images: list[np.ndarray] = []
        size = self.settings.size
        stored = zip(table.column(HEIGHT).to_pylist(), table.column(WIDTH).to_pylist(), strict=True)
        for place, (pixels, own) in enumerate(zip(table.column(PIXELS), stored, strict=True)):
            if pixels.is_valid:
                shape = (*(size or own), 3)
                copies = np.frombuffer(pixels.as_buffer(), np.uint8).reshape(-1, *shape)
                places += range(place * len(copies), (place + 1) * len(copies))
                images += list(copies)
        return places, images


_MEASURED = [
    pa.field(FETCH_SECONDS, pa.float32()),
    pa.field(DECODE_SECONDS, pa.float32()),
    pa.field(MODEL_SECONDS, pa.float32()),
    pa.field(OUT_OF_MEMORY, pa.int32()),
    pa.field(DECODED_ON, pa.string()),
    pa.field(DEVICE, pa.string()),
]


def _device_name(device: str) -> str:
    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return device.upper() if device == "cpu" else device


def _result_columns(features: np.ndarray, settings: ScoreSettings) -> dict[str, pa.Array]:
    """Return the columns made from the features of rows and of their degraded copies."""
    # A row whose copy failed has failed: its score and its views are both present or both null.
    features = np.where(np.isfinite(features).all(axis=1, keepdims=True), features, np.nan)
    own = features[:, : settings.width]
    columns: dict[str, pa.Array] = {}
    if settings.prompts is not None:
        columns |= score_columns(own, settings.prompts)
    if EMBEDDING in settings.schema.names:
        columns[EMBEDDING] = feature_column(own)
    if settings.views:
        columns[VIEWS] = feature_column(features[:, settings.width :])
    return columns
