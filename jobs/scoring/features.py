"""Opens what `iqa rescore --features` names: a feature cache of ours, or features of another program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.errors import InputError
from iqa_core.redaction import error_line, redact
from iqa_core.storage.folder import Folder
from iqa_core.tables.feature_cache import FeatureCache
from iqa_core.tables.foreign.features import ForeignFeatures, kind_of_files
from iqa_core.tables.output import FINGERPRINT

if TYPE_CHECKING:
    from iqa_core.tables.feature_source import FeatureSource

    from ..config import RescoreOptions

__all__ = ["open_features"]

#: Options that describe features which don't describe themselves.
_FOREIGN = ("features_column", "metadata", "uri_column", "model", "normalise", "check_images")


def open_features(config: RescoreOptions) -> FeatureSource:
    """Open the features of a command.

    Args:
        config: ``--features``, and for those of another program what describes them.

    Raises:
        InputError: If they can't be read, or an option has no effect or is missing.
    """
    given = [name for name in _FOREIGN if getattr(config, name) not in (None, False)]
    if _is_cache(config.features):
        if given:
            raise InputError(
                f"--{given[0].replace('_', '-')} is for features of other programs, but --features "
                f"{config.features} is of `iqa embed`, which has recorded it: leave it out"
            )
        return FeatureCache(config.features)
    kind_of_files(config.features)  # that it is there at all comes first
    if config.model is None:
        raise InputError(
            f"--features {config.features} does not say which model made it: name that by --model, such as "
            "--model ViT-L-14/openai"
        )
    return ForeignFeatures.open(
        config.features,
        config.model,
        column=config.features_column,
        metadata=config.metadata,
        uri_column=config.uri_column,
        normalise=config.normalise,
    )


def _is_cache(uri: str) -> bool:
    """Return whether features are a folder of ours."""
    if uri.endswith((".npy", ".npz")):  # below a file nothing can be asked for on every store
        return False
    try:
        return Folder.given(uri, "features").exists(FINGERPRINT)
    except OSError as error:
        raise InputError(f"--features {redact(uri)} can't be read: {error_line(error)}") from error
