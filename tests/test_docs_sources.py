"""The page on sources is executed: its commands on a folder of patients and a table, its Python as it stands."""

import pytest
from conftest import make_image
from images import write_table
from test_docs import ROOT, blocks, small

from pipeline.cli.extract import command

PAGE = (ROOT / "docs" / "SOURCES.md").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`photos/<class>/<patient>/*.jpg` and `scans.csv` beside them."""
    folder = tmp_path_factory.mktemp("sources")
    lines = []
    for seed in range(48):
        label, patient = ("apple", "beet")[seed % 2], f"p{seed // 4}"
        path = folder / "photos" / label / patient / f"{seed:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image(seed).save(path)
        lines.append((path.relative_to(folder), label, label, patient))
    write_table(folder / "scans.csv", ("path", "label", "finding", "patient"), lines)
    return folder


def test_commands_run(place, cli, monkeypatch):
    monkeypatch.chdir(place)
    lines = [line for code in blocks(PAGE, "sh") for line in code.splitlines()]
    assert len(lines) == 4
    for line in lines:
        words = small(line).partition(" -m pipeline ")[2].split()
        result = cli(*words, "--workers", "1")
        assert result.code == 0, result.err


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(PAGE, "python")
    exec(small(code), {})


def test_every_option_of_reading_is_on_the_page():
    names = [option.opts[0] for option in command.params if option.opts[0].startswith("--")]
    for name in [name for name in names if name.endswith("-column") or name in ("--group-by", "--unlabelled")]:
        assert name in PAGE, name
