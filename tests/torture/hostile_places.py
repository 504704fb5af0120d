"""Sources, ids and configuration files that mean harm: what to prepare, what to run, how it must end."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import BACKBONE

EXTRACT = [*BACKBONE, "--workers", "1"]
LONG = "x" * 4096
NUL = "a\0b"


@dataclass(frozen=True)
class Place:
    """A folder of its own, two levels below another, with photos, a finished entry and a trained run."""

    outside: Path
    root: Path
    name: str
    """The entry's id."""

    @property
    def photos(self) -> Path:
        return self.root / "photos"

    @property
    def entry(self) -> Path:
        return self.root / "cache" / self.name

    @property
    def run(self) -> Path:
        return self.root / "runs" / "0001"


@dataclass(frozen=True)
class Case:
    """What is prepared, the command then run, and the exit code it must have."""

    name: str
    code: int
    prepare: Callable[[Place], object]
    arguments: tuple[str, ...]


def nothing(_place: Place) -> None:
    """Leave the place as it is."""


def link(name: str, goal: str) -> Callable[[Place], object]:
    """Put a symbolic link into the photos."""
    return lambda place: (place.photos / name).symlink_to(goal)


def sources() -> Iterator[Case]:
    """Folders with links out of them, and what is no folder."""
    here = ("extract", "photos", *EXTRACT)

    def outside(place: Place) -> None:
        (place.outside / "secret").mkdir()
        (place.outside / "secret" / "0.jpg").write_bytes((place.photos / "apple" / "00.jpg").read_bytes())

    def linked(name: str, goal: str) -> Callable[[Place], object]:
        return lambda place: (outside(place), (place.photos / name).symlink_to(goal))

    def in_two_steps(place: Place) -> None:
        outside(place)
        (place.photos / ".hidden").symlink_to(place.outside / "secret" / "0.jpg")
        (place.photos / "apple" / "zz.jpg").symlink_to("../.hidden")

    yield Case("file linked from outside", 3, linked("apple/zz.jpg", "../../../../secret/0.jpg"), here)
    yield Case("absolute link to a system file", 3, link("apple/zz.jpg", "/etc/passwd"), here)
    yield Case("link to a device", 3, link("apple/zz.jpg", "/dev/zero"), here)
    yield Case("link to nowhere outside", 3, link("apple/zz.jpg", "/nowhere/0.jpg"), here)
    yield Case("class folder linked from outside", 3, linked("corn", "../../../secret"), here)
    yield Case("link by a link", 3, in_two_steps, here)
    yield Case("all classes links", 3, lambda place: _only(place, "corn", "../../../secret", outside), here)
    yield Case("a file", 3, nothing, ("extract", "photos/apple/00.jpg", *EXTRACT))
    yield Case("a device", 3, nothing, ("extract", "/dev/zero", *EXTRACT))
    yield Case("a pipe", 3, lambda place: os.mkfifo(place.root / "pipe"), ("extract", "./pipe", *EXTRACT))
    yield Case(
        "a link to itself", 3, lambda place: (place.root / "loop").symlink_to("loop"), ("extract", "./loop", *EXTRACT)
    )
    yield Case("a NUL in the source", 3, nothing, ("extract", f"./{NUL}", *EXTRACT))
    yield Case("a long source", 3, nothing, ("extract", f"./{LONG}", *EXTRACT))
    yield Case("nobody's home", 3, nothing, ("extract", "~nobody-of-this-name/x", *EXTRACT))
    yield Case("an empty source", 2, nothing, ("extract", "", *EXTRACT))
    for name, text in (("NUL", NUL), ("long", LONG), ("climbing", "../../../etc/passwd")):
        yield Case(f"{name} weights", 3, nothing, ("extract", "photos", *EXTRACT[:3], f"./{text}.pth", *EXTRACT[4:]))
        yield Case(f"{name} backbone", 2, nothing, ("extract", "photos", "--backbone", text))
    yield Case("an enormous image size", 2, nothing, (*here, "--image-size", "1000000000"))
    yield Case("a long cache root", 4, nothing, (*here, "--limit", "3", "--cache-dir", LONG))
    yield Case("a cache root below a file", 4, nothing, (*here, "--limit", "3", "--cache-dir", "photos/apple/00.jpg/x"))


def _only(place: Place, name: str, goal: str, before: Callable[[Place], object]) -> None:
    before(place)
    for folder in ("apple", "beet"):
        shutil.rmtree(place.photos / folder)
        (place.photos / folder).symlink_to(goal)
    (place.photos / name).symlink_to(goal)


def ids() -> Iterator[Case]:
    """Names of entries and runs that climb, are no names, or fit too much."""

    def victim(place: Place) -> None:
        (place.outside / "x").mkdir()
        (place.outside / "x" / "entry.json").write_text("{}")
        (place.outside / "x" / "precious.txt").write_text("to be kept")
        (place.outside / "x" / "run.json").write_text("{}")

    names = [
        "../../x",
        "..",
        ".",
        "/",
        "/etc/passwd",
        NUL,
        LONG,
        "x/" * 2000,
        "*",
        "[",
        "?",
        "",
        "~",
        "\n",
        "\udcff",
        "--",
    ]
    for name in names:
        for code, command in (
            (4, ("train-head",)),
            (3, ("evaluate",)),
            (4, ("cache", "info")),
            (4, ("cache", "verify")),
        ):
            code = 2 if not name and command[0] != "evaluate" else code
            yield Case(f"{' '.join(command)} {name[:20]!r}", code, victim, (*command, "--", name))
        yield Case(f"cache rm {name[:20]!r}", 4 if name else 2, victim, ("cache", "rm", "--yes", "--", name))
    for name in ("../../x", LONG, NUL, "a/b", "..", " "):
        yield Case(f"run called {name[:20]!r}", 2, nothing, ("train-head", "latest", "--name", name))


CONFIG = """cache_dir = "new"
[extract]
source = "photos"
backbone = "shufflenet_v2_x0_5"
weights = "none"
image_size = 32
"""


def configs() -> Iterator[Case]:
    """Experiment files that are damaged, enormous or of the wrong types."""
    texts: dict[str, bytes | str] = {
        "empty": "",
        "no UTF-8": CONFIG.encode() + b'# \xff\xfe\nname = "\xff"\n',
        "NULs": bytes(1000),
        "random": os.urandom(5000),
        "10 MB of one key": "x = '" + "y" * (10 << 20) + "'\n",
        "3,000 unknown keys": "".join(f"key{number} = 1\n" for number in range(3_000)),
        "deep arrays": "x = " + "[" * 100_000 + "]" * 100_000,
        "deep tables": "x = " + "{a = " * 50_000 + "1" + "}" * 50_000,
        "deep keys": CONFIG + "a." * 2_000 + "b = 1\n",
        "a key twice": CONFIG + CONFIG,
        "a number of 5,000 digits": CONFIG + "limit = 1" + "0" * 5000 + "\n",
        "sections that are none": "extract = 5\nhead = []\nevaluate = 'x'\n",
        "a list of sections": CONFIG.replace("[extract]", "[[extract]]"),
        "an unknown section": CONFIG + "[[plugins]]\ncode = 'import os'\n",
    }
    wrong = {
        "extract": {
            "source": (5, [], {}, True),
            "backbone": (5, [], "../../x", "os.system"),
            "image_size": ("x", 1.5, [], 10**30),
            "mean": ([1, 2, 3, 4, 5], "x", float("nan"), [[]]),
            "std": (0, [1, 0, 1], float("inf")),
            "limit": (0, -1, "x"),
            "workers": (0, -1, "many"),
            "batch_size": (0, -5, []),
            "test_fraction": (1.5, -1, float("nan"), "x"),
            "on_bad_image": ("delete", 5),
            "store_dtype": ("float8", 5),
            "engine": ("os", 5),
            "follow_symlinks": ("perhaps", 7),
        },
        "head": {"lr": ("fast", -1, float("nan")), "epochs": (0, 1.5, []), "optimizer": ("lion", 3), "name": (5, [])},
    }
    for section, keys in wrong.items():
        for key, values in keys.items():
            for value in values:
                lines = [line for line in CONFIG.splitlines() if not line.startswith(f"{key} =")]
                body = "\n".join(lines) + (f"\n[{section}]" if section != "extract" else "")
                texts[f"{section}.{key} = {value!r}"] = f"{body}\n{key} = {_toml(value)}\n"
    for name, text in texts.items():
        data = text if isinstance(text, bytes) else text.encode()
        yield Case(f"configuration: {name}", 2, _written("c.toml", data), ("run", "c.toml"))
    for key in ("cache_dir", "runs_dir", "data_root"):
        for value in (5, [], {}):
            data = f"{key} = {_toml(value)}\n".encode() + CONFIG.replace('cache_dir = "new"', "").encode()
            yield Case(f"configuration: {key} = {value!r}", 2, _written("c.toml", data), ("run", "c.toml"))
    for key in ("source", "weights", "cache_dir", "backbone"):
        lines = [line for line in CONFIG.splitlines() if not line.startswith(f"{key} =")]
        said = [f'{key} = "./a\\u0000b"']  # which no command line can say
        data = "\n".join([*said, *lines] if key == "cache_dir" else [*lines, *said]).encode()
        yield Case(f"configuration: a NUL in {key}", 2, _written("c.toml", data), ("run", "c.toml"))
    yield Case("configuration: a folder", 2, lambda place: (place.root / "c.toml").mkdir(), ("run", "c.toml"))
    yield Case("configuration: a long name", 2, nothing, ("run", LONG))


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{}"
    return str(value) if isinstance(value, float) else json.dumps(value)


def _written(name: str, data: bytes) -> Callable[[Place], object]:
    return lambda place: (place.root / name).write_bytes(data)
