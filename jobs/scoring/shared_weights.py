"""Weights in Ray's object store that all processes of a node share, instead of a copy in each of them.

Torch pickles a tensor as the bytes of a file, which the writer copies several times and each reader copies
again. Here a tensor is a buffer beside the pickle, which Ray leaves where it is: the scoring actors of a
node read their weights from one place in its memory.
"""

from __future__ import annotations

import io
import sys
import warnings
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any

from ray import cloudpickle

if TYPE_CHECKING:
    import torch

__all__ = ["SharedWeights", "with_shared_weights"]


def with_shared_weights(tower: object) -> object:
    """Return what to put into the object store for a tower.

    Those of other packages (``--model PREFIX:ARGUMENT``) may write to their tensors, so that each process
    gets its own.
    """
    if "torch" not in sys.modules:  # nor has a tower tensors then
        return tower
    from iqa_core.clip.build import LazyImageTower
    from iqa_core.clip.image_tower import ImageTower

    return SharedWeights(tower) if isinstance(tower, (ImageTower, LazyImageTower)) else tower


class SharedWeights:
    """Anything with tensors; unpickled, it is the thing itself, and its tensors can only be read.

    Writing to them would end the process: what computes with weights makes others of them, or moves them to
    a GPU. Tensors elsewhere than in a CPU's memory, views of a part of another tensor, and tensors of
    subclasses are pickled as torch does it.

    Args:
        value: What is pickled.
    """

    def __init__(self, value: object) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        buffers: list[PickleBuffer] = []
        stream = io.BytesIO()
        pickler: Any = _Pickler  # whose base class has no types
        pickler(stream, protocol=5, buffer_callback=buffers.append).dump(self.value)
        return _loaded, (stream.getvalue(), buffers)


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:  # noqa: ANN401 - as of cloudpickle
        import torch

        if type(obj) is torch.Tensor and _is_plain(obj):
            storage = torch.empty(0, dtype=torch.uint8).set_(obj.untyped_storage())
            content: Any = storage.numpy()
            layout = obj.size(), obj.stride(), obj.storage_offset()
            return _tensor, (PickleBuffer(content), obj.dtype, *layout)
        return super().reducer_override(obj)  # type: ignore[no-untyped-call]


def _is_plain(tensor: torch.Tensor) -> bool:
    import torch

    return (
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not tensor.requires_grad
        and not tensor.is_quantized
        and 0 < tensor.nbytes == tensor.untyped_storage().nbytes()
    )


def _loaded(pickled: bytes, buffers: list[Any]) -> Any:  # noqa: ANN401 - what was pickled
    return cloudpickle.loads(pickled, buffers=buffers)


def _tensor(
    content: Any,  # noqa: ANN401 - a buffer
    dtype: torch.dtype,
    size: torch.Size,
    stride: tuple[int, ...],
    offset: int,
) -> torch.Tensor:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        return torch.frombuffer(content, dtype=dtype).as_strided(size, stride, offset)
