"""A calibration on disk: a JSON document with the curve, its quality, and whose scores it is for."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iqa_core.columns import SCORE
from iqa_core.errors import InputError
from iqa_core.evaluation.calibration import Calibration, IsotonicFit
from iqa_core.evaluation.logistic import LogisticFit
from iqa_core.redaction import error_line, redact
from iqa_core.storage.folder import Folder
from iqa_core.tables.schema import ExtraColumn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CalibrationFile", "calibration_columns"]

_FORMAT = 1
#: Keys of a run's fingerprint without which equal scores don't mean equal quality; compared only where
#: both are known: the resolution of foreign features is not.
_SAME = ("weights", "quick_gelu", "prompts", "logit_scale", "resolution")
_CROPS = "crops"  # compared always: without this key a score is of one view


@dataclass(frozen=True)
class CalibrationFile:
    """A calibration and the scores that it is for.

    Attributes:
        calibration: The curve and its interval.
        label: Name of the labels' column.
        scored_by: The part of the fingerprint of the scores that decides about them; empty if unknown.
    """

    calibration: Calibration
    label: str
    scored_by: Mapping[str, Any]

    @classmethod
    def of(
        cls, calibration: Calibration, label: str, fingerprint: Mapping[str, Any]
    ) -> CalibrationFile:
        """Return the file of a calibration of an output with some fingerprint."""
        names = ("model", *_SAME, _CROPS)
        return cls(calibration, label, {k: fingerprint[k] for k in names if k in fingerprint})

    @classmethod
    def read(cls, uri: str) -> CalibrationFile:
        """Read a file.

        Raises:
            InputError: If it can't be read, or is of another kind.
        """
        folder, name = Folder.of_file(uri, "calibration")
        try:
            document = json.loads(folder.read(name))
            if document["format"] != _FORMAT:
                raise ValueError(f"its format is {document['format']}, and {_FORMAT} is read")
            return cls(_from_json(document), str(document["label"]), document["scored_by"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"--calibration {redact(uri)} is not a calibration ({type(error).__name__}: "
                f"{error_line(error)}): make one by `iqa calibrate`"
            ) from error

    def write(self, uri: str) -> None:
        """Write a file, whole or not at all.

        Raises:
            InputError: If it can't be written.
        """
        folder, name = Folder.of_file(uri, "output")
        try:
            folder.write_json(name, self.to_json())
        except OSError as error:
            raise InputError(
                f"--output {redact(uri)} can't be written ({error_line(error)})"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the document; an error that is NaN is null, as JSON holds no NaN."""
        found = asdict(self.calibration)
        found["rmse"] = {
            kind: None if math.isnan(error) else error for kind, error in found["rmse"].items()
        }
        return {"format": _FORMAT, **found, "label": self.label, "scored_by": dict(self.scored_by)}

    @property
    def digest(self) -> str:
        """A digest of everything that the predictions follow from."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check(self, fingerprint: Mapping[str, Any]) -> None:
        """Refuse scores of another model, other prompts, another scale or other views.

        Args:
            fingerprint: Of the run whose scores are mapped.

        Raises:
            InputError: If they differ from those that the labels were compared with.
        """
        for key in (*_SAME, _CROPS):
            missing = 1 if key == _CROPS else None
            mine, theirs = self.scored_by.get(key, missing), fingerprint.get(key, missing)
            if mine is not None and theirs is not None and mine != theirs:
                raise InputError(
                    f"--calibration is for scores with {key} {_short(mine)}, but these have "
                    f"{_short(theirs)}: calibrate these scores by `iqa calibrate`, or leave it out"
                )


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 20 else text


def _from_json(document: Mapping[str, Any]) -> Calibration:
    curve: LogisticFit | IsotonicFit
    stored = document["curve"]
    if document["kind"] == "logistic":
        curve = LogisticFit(tuple(stored["parameters"]), stored["plcc"], stored["rmse"])
    else:
        curve = IsotonicFit(tuple(stored["x"]), tuple(stored["y"]))
    low, high = document["label_range"]
    rmse = {kind: math.nan if error is None else error for kind, error in document["rmse"].items()}
    names = ("kind", "half_width", "coverage", "srcc", "labels", "increasing")
    return Calibration(
        curve=curve, rmse=rmse, label_range=(low, high), **{name: document[name] for name in names}
    )


def calibration_columns(file: CalibrationFile) -> list[ExtraColumn]:
    """Return the columns ``mos``, ``mos_low`` and ``mos_high`` of an output."""
    share = f"{100 * file.calibration.coverage:g}%"
    docs = {
        "mos": f"predicted {file.label}, by a calibration",
        "mos_low": f"lower end of its {share} interval",
        "mos_high": f"upper end of its {share} interval",
    }
    return [
        ExtraColumn(
            name,
            pa.float32(),
            doc,
            partial(_predicted, file.calibration, place),
            digest=file.digest,
            check=file.check,
        )
        for place, (name, doc) in enumerate(docs.items())
    ]


def _predicted(calibration: Calibration, place: int, rows: pa.Table) -> pa.Array:
    scores = rows.column(SCORE).to_numpy().astype(np.float64)
    values = calibration.predict(scores)[place]
    return pa.array(values.astype(np.float32), mask=np.isnan(values))
