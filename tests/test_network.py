"""The main commands open no socket: no telemetry, no look for updates, no download that was not asked for."""

import subprocess
import sys

from conftest import BACKBONE, make_photos

from pipeline.engines.registry import missing

GUARDED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith("socket.") else None)
from pipeline.cli import main
for arguments in {commands!r}:
    try:
        main(arguments)
    except SystemExit as stop:
        assert not stop.code, (arguments, stop.code)
assert not opened, opened
import socket
socket.socket().close()
assert opened, "the guard itself does not work"
"""


def test_no_socket_is_opened(tmp_path):
    make_photos(tmp_path / "photos", per_class=6)
    commands = [
        ["extract", "photos", *BACKBONE, "--workers", "1", "--test-fraction", "0.4"],
        ["train-head", "latest", "--epochs", "1"],
        ["evaluate", "latest", "--end-to-end"],
        ["train-head", "latest", "--solver", "centroid"],
        ["evaluate", "latest"],
        ["compare"],
        ["audit", "latest", "--folds", "2", "--workers", "1"],
        ["learn-curve", "latest", "--draws", "1", "--fractions", "0.5,1"],
        ["report", "latest", "--workers", "1"],
        ["audit", "latest", "--folds", "2"],
    ]
    if not missing("openvino", "cpu"):
        commands.append(["extract", "photos", *BACKBONE, "--engine", "openvino", "--restart"])
    script = GUARDED.format(commands=commands)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
