"""Weights files that would run code, lead elsewhere, ask for memory, or are damaged; none may be loaded."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from conftest import SPACE
from safetensors.torch import save
from torch import nn
from torchvision import models


class Payload:
    """Whoever unpickles it calls a function, as `__reduce__` lets any pickle do."""

    def __init__(self, function: Callable[..., Any] | str, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def pickled_call(module: str, name: str, *arguments: Any) -> bytes:
    """Return a pickle that calls `module.name(*arguments)`, written by hand: the function need not exist here."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + b"R."


@cache
def state() -> dict[str, torch.Tensor]:
    """Return a state dict that fits the backbone of these tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network: nn.Module = models.get_model(SPACE["backbone"])
    return dict(network.state_dict())


def saved(value: Any, **options: Any) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def archive(pickled: bytes, **records: bytes) -> bytes:
    """Return a file of torch's zip format with this pickle and other records, in which `__` stands for `/`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", b"3\n")
        for name, data in records.items():
            file.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def calls(canary: Path) -> dict[str, bytes]:
    """Return pickles that leave a canary behind, by the way they do it."""
    touch = f"touch '{canary}'"
    script = f"open({str(canary)!r}, 'w').close()"
    inner = pickled_call("posix", "system", touch)
    return {
        "posix.system": inner,
        "os.system": pickled_call("os", "system", touch),
        "builtins.exec": pickled_call("builtins", "exec", script),
        "builtins.eval": pickled_call("builtins", "eval", f"exec({script!r})"),
        "builtins.open": pickled_call("builtins", "open", str(canary), "w"),
        "subprocess.getoutput": pickled_call("subprocess", "getoutput", touch),
        "subprocess.Popen": pickled_call("subprocess", "Popen", ["touch", str(canary)]),
        "runpy": pickled_call("runpy", "_run_code", script, {}),
        "timeit": pickled_call("timeit", "timeit", script),
        "torch.storage": pickled_call("torch.storage", "_load_from_bytes", inner),
        "torch.load": pickled_call("torch.serialization", "load", str(canary)),
        "torch.save": pickled_call("torch.serialization", "save", [1], str(canary)),
        "torch.hub": pickled_call("torch.hub", "load_state_dict_from_url", "file:///etc/passwd", str(canary.parent)),
        "numpy.save": pickled_call("numpy", "save", str(canary), 0),
        "numpy.fromfile": pickled_call("numpy", "fromfile", "/etc/passwd"),
        "pickle.loads": pickled_call("pickle", "loads", inner),
        "pathlib.touch": pickled_call("pathlib", "Path.touch", canary.name),
        "logging.FileHandler": pickled_call("logging", "FileHandler", str(canary)),
        "shutil.copy": pickled_call("shutil", "copy", "/etc/passwd", str(canary)),
        "torch.jit": pickled_call("torch.jit._serialization", "load", str(canary)),
        "distributed.rpc": pickled_call("torch.distributed.rpc.internal", "_run_function", inner),
        "dynamo": pickled_call("torch._inductor.codecache", "PyCodeCache.load", script),
    }


def pickles(canary: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, file name, bytes) of .pth and .pt files that must be refused."""
    inner = pickled_call("posix", "system", f"touch '{canary}'")
    for number, (name, data) in enumerate(calls(canary).items()):
        # In each of the formats that torch has had: a bare pickle, a zip file, the old one with a magic number.
        yield f"pickle that calls {name}", "w.pth", (data, archive(data), old_format(data))[number % 3]
    yield "tar format", "w.tar.pth", tar_format(inner)
    yield "payload as a value", "w.pth", saved({**state(), "note": Payload(print)})
    yield "whole network", "w.pt", saved(nn.Linear(2, 2))
    yield "torchscript", "w.pt", torchscript(canary)
    yield "torchscript's name", "w.pt", archive(inner, archive__constants__pkl=inner, archive__code__x=b"import os\n")
    yield "names that climb", "w.pth", archive(inner, **{"..__..__canary": b"x", "__canary": b"x"})
    yield "pickle bomb", "w.pth", archive(pickle_bomb())
    yield "deep pickle", "w.pth", archive(b"\x80\x02" + b"(" * 50_000 + b"t" * 50_000 + b".")
    yield "item set on a class", "w.pth", archive(b"\x80\x02ctorch\nFloatStorage\nX\x01\0\0\0aK\x01s.")
    yield "attributes set on a dict", "w.pth", archive(b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\0\0\0aK\x01sb.")
    yield "storage larger than its bytes", "w.pth", tensor_file(numel=1 << 40, size=(4,), stored=16)
    yield "tensor beyond its storage", "w.pth", tensor_file(numel=4, size=(1 << 20,), stored=16)
    yield "tensor before its storage", "w.pth", tensor_file(numel=4, size=(4,), stored=16, offset=-8)
    yield "tensor of a negative size", "w.pth", tensor_file(numel=4, size=(-4,), stored=16)
    whole = saved(state())
    for length in (0, 1, 4, 100, 4_000, len(whole) // 2, len(whole) - 1):
        yield f"cut to {length} bytes", "w.pth", whole[:length]
    yield "zeros in the middle", "w.pth", whole[:3000] + bytes(4000) + whole[7000:]
    yield "safetensors called .pth", "w.pth", save(state())
    yield "a tensor alone", "w.pth", saved(torch.zeros(3))
    yield "a list", "w.pth", saved([torch.zeros(3)])
    yield "numbers for names", "w.pth", saved({1: torch.zeros(3)})
    yield "text for tensors", "w.pth", saved({"conv1.0.weight": "text"})
    yield "no tensors", "w.pth", saved({})
    yield "state_dict in a circle", "w.pth", saved(circle())
    yield "sparse tensor", "w.pth", saved({**state(), "conv1.0.weight": torch.zeros(24, 3, 3, 3).to_sparse()})
    yield (
        "complex tensor",
        "w.pth",
        saved({**state(), "conv1.0.weight": torch.zeros(24, 3, 3, 1, dtype=torch.complex64)}),
    )
    yield "name of a megabyte", "w.pth", saved({"n" * (1 << 20): torch.zeros(1)})


def circle() -> dict[str, Any]:
    """Return a dict that holds itself."""
    value: dict[str, Any] = {}
    value["state_dict"] = value
    return value


def pickle_bomb() -> bytes:
    """Return a small pickle of a list that doubles 60 times."""
    layers = b"".join(
        b"q" + bytes([number]) + b"]h" + bytes([number]) + b"ah" + bytes([number]) + b"a" for number in range(60)
    )
    return b"\x80\x02]" + layers + b"."


def old_format(pickled: bytes) -> bytes:
    """Return a file of the format before zip, whose object is this pickle."""
    magic, protocol = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)
    return magic + protocol + pickle.dumps({"little_endian": True}, 2) + pickled + pickle.dumps([], 2)


def tar_format(pickled: bytes) -> bytes:
    """Return a file of torch's first format, a tar file of pickles, with a name that climbs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in ("sys_info", "pickle", "storages", "tensors", "../canary"):
            member = tarfile.TarInfo(name)
            member.size = len(pickled)
            file.addfile(member, io.BytesIO(pickled))
    return buffer.getvalue()


def torchscript(canary: Path) -> bytes:
    """Return a script that would write a file when it is called."""
    code = f"def forward(self, x: Tensor) -> Tensor:\n  torch.save(x, {str(canary)!r})\n  return x\n"
    return archive(
        b"\x80\x02c__torch__\nM\n)\x81}b.",
        archive__constants__pkl=b"\x80\x02).",
        **{"archive__code____torch__.py": code.encode(), "archive__constants.pkl": b"\x80\x02)."},
    )


def tensor_file(*, numel: int, size: tuple[int, ...], stored: int, offset: int = 0) -> bytes:
    """Return a state dict of one tensor, with a storage said to have `numel` items and `stored` bytes of it there."""

    class Writer(pickle._Pickler):  # the C one cannot be told how to write what stands for a storage
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if value == "the storage" else None

    buffer = io.BytesIO()
    arguments = ("the storage", offset, size, (1,), False, OrderedDict())
    Writer(buffer, 2).dump({"conv1.0.weight": Payload(torch._utils._rebuild_tensor_v2, *arguments)})
    return archive(buffer.getvalue(), archive__data__0=bytes(stored), archive__byteorder=b"little")


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file with this header, which claims to be `length` bytes long."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def safetensors_files() -> Iterator[tuple[str, str, bytes]]:
    """Yield (name, file name, bytes) of .safetensors files that must be refused."""

    def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    whole = save(state())
    for length in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        yield f"safetensors cut to {length} bytes", "w.safetensors", whole[:length]
    made = {
        "header of 2^63 bytes": safetensors({}, length=1 << 63),
        "header of 2^64 - 1 bytes": safetensors({}, length=(1 << 64) - 1),
        "header of 200 MB": safetensors({}, length=200 << 20),
        "header that is no JSON": safetensors(b"{'a': 1}"),
        "header that is a list": safetensors([1, 2]),
        "header that is no UTF-8": safetensors(b'{"\xff": 1}'),
        "deep header": safetensors(b'{"a":' * 5000 + b"1" + b"}" * 5000),
        "overlapping tensors": safetensors({"a": tensor([4], 0, 16), "b": tensor([4], 8, 24)}, bytes(24)),
        "hole between tensors": safetensors({"a": tensor([4], 0, 16), "b": tensor([4], 20, 36)}, bytes(36)),
        "offsets beyond the end": safetensors({"a": tensor([4], 0, 16)}, bytes(8)),
        "offsets backwards": safetensors({"a": tensor([4], 16, 0)}, bytes(16)),
        "bytes after the end": safetensors({"a": tensor([4], 0, 16)}, bytes(999)),
        "shape bomb": safetensors({"a": tensor([1 << 40], 0, 16)}, bytes(16)),
        "shape that overflows": safetensors({"a": tensor([1 << 32, 1 << 32], 0, 0)}),
        "shape of nothing that is enormous": safetensors({"conv1.0.weight": tensor([0, 1 << 60], 0, 0)}),
        "negative shape": safetensors({"a": tensor([-4], 0, 16)}, bytes(16)),
        "unknown dtype": safetensors({"a": tensor([4], 0, 16, "PYTHON")}, bytes(16)),
        "pickle called safetensors": saved(state()),
        "right names, other shapes": save({name: torch.zeros(1) for name in state()}),
        "names that climb, in safetensors": save({"../../canary": torch.zeros(1)}),
    }
    for name, data in made.items():
        yield name, "w.safetensors", data
