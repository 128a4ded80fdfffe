"""The settings of a run's stages, from the options of its command."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from iqa_core.fetch.fetcher import Fetcher
from iqa_core.fetch.policy import DEFAULT_SCHEMES
from iqa_core.images.decode import decode_image
from iqa_core.images.encoded import read_for_device

from .settings import StageSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from iqa_core.clip.encoder import Precision, Towers
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.tables.manifest import Manifest

    from ..config import ImageOptions

__all__ = ["stage_settings"]


def stage_settings(
    config: ImageOptions,
    manifest: Manifest,
    towers: Towers,
    prompts: PromptFeatures | None,
    precision: Precision,
    schema: pa.Schema,
    views: int = 0,
    crops: int = 1,
) -> StageSettings:
    """Return how rows become scores.

    Args:
        config: The options.
        manifest: What is read.
        towers: The loaded model.
        prompts: The features of the prompts; None only embeds.
        precision: Precision of the tower.
        schema: The output's columns.
        views: Degraded copies of each image that are encoded beside it.
        crops: Views of each image that are scored.
    """
    preprocess = towers.preprocess if config.resolution == "model" else None
    decoder: partial[Any]
    jpegs = None
    if config.decode == "gpu":
        from iqa_core.scoring.device_jpeg import DeviceDecoder  # torch

        jpegs = DeviceDecoder(towers.preprocess, config.max_pixels)
        decoder = partial(
            read_for_device, preprocess=towers.preprocess, max_pixels=config.max_pixels
        )
    else:
        decoder = partial(
            decode_image,
            preprocess=preprocess,
            mode=config.decode,
            max_pixels=config.max_pixels,
            crops=crops,
        )
    fetcher = Fetcher(
        manifest.folder.uri,
        config.timeout,
        config.retries,
        config.max_bytes,
        schemes=(*DEFAULT_SCHEMES, *config.allow_scheme),
        prefixes=config.allow_prefix,
    )
    return StageSettings(
        tower=towers.image,
        fetcher=fetcher,
        preprocess=preprocess,
        decoder=decoder,
        precision=precision,
        batch_size=config.batch_size,
        width=towers.image.width,
        prompts=prompts,
        schema=schema,
        views=views,
        crops=crops,
        hashes=config.hash,
        dedupe=config.dedupe,
        descriptors=config.descriptors,
        compile=config.compile,
        jpegs=jpegs,
    )
