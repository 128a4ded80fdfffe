"""Export to a data set of Hugging Face: Parquet files with its features, and a card.

Layout: https://huggingface.co/docs/datasets/repository_structure. ``datasets.load_dataset(TARGET)`` reads
it, and ``huggingface-cli upload`` publishes it as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.exporting.files import write_parquet_files
from iqa_core.exporting.target import new_folder
from iqa_core.exporting.types import refused_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqa_core.exporting.source import FinishedOutput

__all__ = ["to_hf"]

_TEXT = """
# Image quality scores

{rows:,} rows of `{manifest}`, scored by distributed-iqa. `score` is the mean over the prompt pairs of
`scores`, from 0 to 1; it is null where `status` is not `ok`.

| status | rows |
|---|---|
{statuses}

Everything that the scores follow from (digest `{digest}`):

```json
{fingerprint}
```
"""


def to_hf(
    source: FinishedOutput, target: str, append: bool, on_rows: Callable[[int], object]
) -> list[str]:
    """Write ``data/train-*.parquet`` with the features of ``datasets``, and the card ``README.md``."""
    import datasets
    from huggingface_hub import DatasetCard, DatasetCardData

    left_out = refused_columns(source.schema, datasets.Features.from_arrow_schema)
    held = [name for name in source.schema.names if name not in left_out]
    features = datasets.Features.from_arrow_schema(pa.schema(map(source.schema.field, held)))
    schema = features.arrow_schema

    def tables() -> Iterator[pa.Table]:
        for table in source.tables(held, on_rows):
            yield table.select(held).cast(schema)

    with new_folder(target, source.provenance()) as folder:
        folder.fs.makedirs(folder.path("data"), exist_ok=True)
        write_parquet_files(
            lambda n: folder.fs.open(folder.path(f"data/train-{n:05d}.parquet"), "wb"),
            schema,
            tables(),
        )
        split = datasets.SplitDict.from_split_dict([{"name": "train", "num_examples": source.rows}])
        info = datasets.DatasetInfo(features=features, splits=split)
        data = DatasetCardData(
            configs=[
                {
                    "config_name": "default",
                    "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
                }
            ],
            tags=["image-quality-assessment"],
        )
        datasets.info.DatasetInfosDict({"default": info}).to_dataset_card_data(data)
        folder.write("README.md", str(DatasetCard(f"---\n{data}\n---\n{_text(source)}")).encode())
    if not left_out:
        return []
    return [f"left out, as data sets of Hugging Face lack their types: {', '.join(left_out)}"]


def _text(source: FinishedOutput) -> str:
    document: dict[str, Any] = source.provenance()
    statuses = "\n".join(
        f"| `{name}` | {count:,} |" for name, count in document["statuses"].items()
    )
    values = document | {
        "statuses": statuses,
        "fingerprint": json.dumps(document["fingerprint"], indent=1),
    }
    return _TEXT.format(**values)
