"""Documents are executed: README's blocks, the format page's reader, every command's place in the README."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SPACE, make_photos

import pipeline
from pipeline.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ./photos in it and the `pipeline` command for shell blocks."""
    folder = tmp_path_factory.mktemp("readme")
    make_photos(folder / "photos", per_class=20)
    return folder


def small(code: str) -> str:
    """README's commands with a small network in place of one that would be downloaded."""
    return (
        code.replace("--backbone resnet18", "--backbone shufflenet_v2_x0_5 --weights none --image-size 32")
        .replace('backbone="resnet18"', "backbone='shufflenet_v2_x0_5', weights='none', image_size=32")
        .replace("pipeline ", f"{sys.executable} -m pipeline ", 0 if code.startswith("import ") else 1)
    )


EXPORT = (ROOT / "docs" / "EXPORT.md").read_text()


def test_python_blocks_run(place):
    found = blocks(README, "python") + blocks(EXPORT, "python")
    assert len(found) >= 2
    for code in found:
        done = subprocess.run(
            [sys.executable, "-c", small(code)], cwd=place, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_shell_blocks_run(place):
    code = "".join(blocks(README, "sh") + blocks(EXPORT, "sh"))
    lines = [line for line in code.splitlines() if "pipeline " in line]
    assert len(lines) >= 3
    for line in lines:
        command = small(line.partition("  #")[0].strip())
        done = subprocess.run(command, shell=True, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_format_page_reader_agrees_with_ours(tmp_path):
    root = make_photos(tmp_path / "photos", per_class=5)
    (root / "beet" / "01.jpg").write_bytes(b"")
    made = pipeline.extract(
        str(root), cache_dir=tmp_path / "cache", workers=1, on_bad_image="skip", batch_size=2, shard_rows=4, **SPACE
    )
    namespace: dict[str, object] = {}
    for code in blocks((ROOT / "docs" / "FORMAT.md").read_text(), "python"):
        exec(code, namespace)
    features, labels, split, ids, classes = namespace["read_entry"](made.path)
    ours = pipeline.open_cache(made.path)
    assert np.array_equal(features, ours.x.numpy())
    assert np.array_equal(labels, ours.y.numpy())
    assert (list(ids), list(split), tuple(classes)) == (ours.ids, ours.split.tolist(), ours.classes)


def test_every_command_is_in_the_readme():
    for name in COMMANDS:
        assert f"pipeline {name}" in README


def test_links_in_documents_lead_somewhere():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
