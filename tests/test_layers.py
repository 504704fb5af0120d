"""Imports go downwards only: the order of the house, lowest first."""

import ast
from pathlib import Path

import pipeline

HOUSE = [
    {"errors", "digest", "progress", "versions", "reference_loop", "calibration", "csvtext", "textcolumn"},
    {"device", "threads", "memory", "config"},
    {"sources"},
    {"backbones"},
    {"engines"},
    {"loading"},
    {"store"},
    {"features", "outputs"},
    {"streaming"},
    {"extraction"},
    {"launch"},
    {"heads"},
    {"metrics", "selection", "runs", "model", "origin", "subsets", "extrapolation", "findings", "views"},
    {"fusion", "binding", "saving", "outcomes", "touches", "parity"},
    {"intervals"},
    {"training", "finetuning", "evaluation", "judge", "verification", "prediction", "artifacts", "paired"},
    {"sweeping", "head_arguments", "learning_curve", "demo", "doctor", "seeds", "backbone_choice", "auditing"},
    {"comparison", "experiment"},
    {"benchmark"},
    {"reporting"},
    {"console"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(HOUSE) for name in names}
ROOT = Path(pipeline.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")

ONLY_IN = {
    "h5py": {"store"},
    "click": {"cli"},
    "rich": {"console"},
    "torchvision": {"sources", "backbones", "reference_loop", "doctor", "benchmark"},
    "matplotlib": {"reporting"},
    "timm": {"backbones"},
    "openvino": {"engines"},
    "ray": {"launch"},
    "subprocess": {"loading", "launch", "doctor", "benchmark"},
    "multiprocessing": {"loading", "launch"},
}


def imports(path: Path) -> set[str]:
    """Full names of all imports in a file, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_file_has_its_place():
    assert {part_of(path) for path in FILES} == set(LEVEL)


def test_imports_go_downwards():
    for path in FILES:
        own = part_of(path)
        for name in imports(path):
            if name.startswith("pipeline."):
                other = name.split(".")[1]
                if other == "__version__":
                    continue
                assert other == own or LEVEL[other] < LEVEL[own], f"{path.relative_to(ROOT)} imports {name}"


def test_libraries_stay_in_their_rooms():
    for path in FILES:
        for name in imports(path):
            room = ONLY_IN.get(name.partition(".")[0])
            assert room is None or part_of(path) in room, f"{path.relative_to(ROOT)} imports {name}"


def test_reference_loop_shares_no_code_and_is_one_file():
    names = imports(ROOT / "reference_loop.py")
    allowed = {"time", "collections", "dataclasses", "typing", "torch", "torchvision"}
    assert {name.partition(".")[0] for name in names} <= allowed
    assert (Path(__file__).parent / "reference_loop.py").samefile(ROOT / "reference_loop.py")


def test_files_stay_small():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 350, path
