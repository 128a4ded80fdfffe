"""TorchScript archives: the same tensors as ``torch.jit.load`` gives, and nothing in a file is run."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from iqa_core.clip.load import load_towers
from iqa_core.clip.torchscript import is_torchscript, read_torchscript
from iqa_core.clip.weights_error import WeightsError
from iqa_core.errors import InputError


class Block(nn.Module):
    """Parameters, a buffer, and tensors that are neither, as OpenAI's residual blocks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.sizes = [2, 3]
        self.scales = [0.5]
        self.attn_mask = torch.ones(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x @ self.attn_mask)) * self.scales[0] + self.sizes[0]


class Tree(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.table = nn.Parameter(torch.arange(6.0).reshape(2, 3).T.half())  # not contiguous
        self.register_buffer("whole", torch.arange(4))
        self.register_buffer("nothing", torch.zeros(0))
        self.register_buffer("part", torch.arange(10.0)[3:7])
        self.register_buffer("flag", torch.tensor(True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


def save(module: nn.Module, path: Path, how: Callable[[nn.Module], torch.jit.ScriptModule]) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")
        how(module.eval()).save(str(path))
    return path


def by_torch(path: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        for name, tensor in expected.items()
    )


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.script(module)


def traced(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.trace(module, torch.ones(2, 3))


@pytest.mark.parametrize("how", [scripted, traced])
def test_tensors_are_those_of_torch_jit(how, tmp_path):
    torch.manual_seed(0)
    path = save(Tree(), tmp_path / "tree.pt", how)
    expected = by_torch(path)
    assert len(expected) == 2 * 7 + 5
    assert not any("attn_mask" in name for name in expected)
    assert equal(read_torchscript(path), expected)


@pytest.mark.parametrize("name", ["small-vit-quickgelu", "small-rn-quickgelu"])
def test_archives_in_openais_layout(name, openai_archives):
    path = openai_archives[name]
    found = read_torchscript(path)
    assert {"input_resolution", "context_length", "vocab_size"} < found.keys()
    assert {tensor.dtype for tensor in found.values()} >= {torch.float16, torch.float32}
    assert equal(found, by_torch(path))


def test_no_tensor_is_a_parameter_or_shares_with_the_file(openai_archives):
    path = openai_archives["small-vit-quickgelu"]
    before = path.read_bytes()
    found = read_torchscript(path)
    found["logit_scale"] += 1
    assert path.read_bytes() == before
    assert not any(tensor.requires_grad for tensor in found.values())


def test_torch_jit_is_not_used(openai_archives, monkeypatch):
    def gone(*_, **__):
        raise AssertionError("torch.jit.load goes away")

    monkeypatch.setattr(torch.jit, "load", gone)
    towers = load_towers(f"openai@{openai_archives['small-vit-quickgelu']}")
    assert towers.text.encode(["a photo"]).isfinite().all()


def rewritten(path: Path, target: Path, *, compress: bool = False, **members: bytes) -> Path:
    """Copy an archive with other contents of some members, by the last part of their names."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", kind) as new:
        for name in old.namelist():
            content = members.get(Path(name).stem, old.read(name))
            new.writestr(zipfile.ZipInfo(name), content, kind)
    return target


@pytest.mark.slow
def test_compressed_archives_are_read(openai_archives, tmp_path):
    path = openai_archives["small-vit-quickgelu"]
    packed = rewritten(path, tmp_path / "packed.pt", compress=True)
    assert packed.stat().st_size < path.stat().st_size
    assert equal(read_torchscript(packed), read_torchscript(path))


class Calls:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture
def archive(tmp_path) -> Path:
    return save(Block(), tmp_path / "block.pt", scripted)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function", [os.system, eval, getattr, pickle.loads, torch.load, torch.hub.load]
)
def test_a_call_of_anything_is_refused(function, protocol, archive, tmp_path):
    harm = tmp_path / "harm"
    content = pickle.dumps({"x": Calls(function, f"touch {harm}")}, protocol)
    hostile = rewritten(archive, tmp_path / "hostile.pt", data=content)
    with pytest.raises(WeightsError, match="whose code would have to be run") as caught:
        read_torchscript(hostile)
    assert f".{function.__name__} beside tensors" in str(caught.value)
    assert not harm.exists()
    with pytest.raises(InputError, match="whose code would have to be run"):
        load_towers(f"openai@{hostile}")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02c__torch__.os\nsystem\nX\x04\x00\x00\x00true\x85R.",  # a stub takes no arguments
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__K\x01s\x86b.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        b"\x80\x04\x8c\x0ctorch._utils\x8c\x1f_rebuild_tensor_v2.__globals__.x\x93.",
        b"\x80\x02c__torch__\nM\n)\x81.",  # a module without attributes: no tensors
        b"\x80\x02}.",
        b"\x80\x02K\x01Q.",
        b"",
        b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",  # contains itself
    ],
)
def test_tricks_with_the_pickle_give_no_tensors(content, archive, tmp_path):
    hostile = rewritten(archive, tmp_path / "hostile.pt", data=content)
    with pytest.raises(InputError, match=r"hostile.pt do not load as openai \("):
        load_towers(f"openai@{hostile}")


def reference(storage: str, key: str, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A module with one tensor, which may not be what the record holds."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            kind = getattr(torch, storage)
            return ("storage", kind, key, "cpu", 9) if isinstance(value, Storage) else None

    import io

    file = io.BytesIO()
    Pickler(file, 2).dump(
        Calls(torch._utils._rebuild_tensor_v2, Storage(), 0, size, stride, False, {})
    )
    tensor = file.getvalue()[2:-1]
    return b"\x80\x02c__torch__\nM\n)\x81}X\x01\x00\x00\x00a" + tensor + b"sb."


def test_a_tensor_reads_no_further_than_its_record(archive, tmp_path):
    def read(*arguments):
        content = reference(*arguments)
        return read_torchscript(rewritten(archive, tmp_path / "hostile.pt", data=content))

    with zipfile.ZipFile(archive) as members:
        records = {
            Path(record.filename).name: record.file_size
            for record in members.infolist()
            if "/data/" in record.filename
        }
    key = next(key for key, size in records.items() if size == 9 * 4)
    assert read("FloatStorage", key, (3, 3), (3, 1))["a"].shape == (3, 3)
    for size, stride in (((10,), (1,)), ((2, 3), (9, 1)), ((3, 3), (-3, 1)), ((2,), (2**62,))):
        with pytest.raises(WeightsError, match="damaged or cut short: a tensor"):
            read("FloatStorage", key, size, stride)
    with pytest.raises(WeightsError, match="beyond its record"):
        read("DoubleStorage", key, (9,), (1,))
    with pytest.raises(WeightsError, match="damaged or cut short"):
        read("FloatStorage", "absent", (1,), (1,))


def test_a_damaged_archive_is_named_so(archive, tmp_path):
    whole = archive.read_bytes()
    for at in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path = tmp_path / "damaged.pt"
        path.write_bytes(damaged)
        try:
            read_torchscript(path)
        except WeightsError as error:
            assert "\n" not in f"{error.problem}{error.advice}"  # noqa: PT017 - or it is read


def test_other_zips_are_none(tmp_path, archive):
    torch.save({"a": torch.ones(1)}, tmp_path / "state.pt")
    with zipfile.ZipFile(tmp_path / "state.pt") as saved, zipfile.ZipFile(archive) as scripted_one:
        assert not is_torchscript(saved)
        assert is_torchscript(scripted_one)
