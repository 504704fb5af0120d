"""What the campaign's hook sees is what the kernel sees: no change of the disk passes it by."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stages
from harness import FULL, photos_in
from syscalls import Watch

STRACE = shutil.which("strace")
NAMES = {
    "creat": "open",
    "linkat": "link",
    "symlinkat": "symlink",
    "mkdirat": "mkdir",
    "openat": "open",
    "pwrite64": "write",
    "pwritev": "write",
    "pwritev2": "write",
    "renameat": "rename",
    "renameat2": "rename",
    "replace": "rename",
    "remove": "unlink",
    "unlinkat": "unlink",
    "utimensat": "utime",
    "writev": "write",
}
"""The kernel's and Python's names of what is the same; others are taken as they are."""
CHANGES = (
    "creat,link,linkat,symlink,symlinkat,mkdir,mkdirat,mknod,mknodat,open,openat,openat2,write,writev,pwrite64,pwritev,"
    "pwritev2,rename,renameat,renameat2,unlink,unlinkat,rmdir,utimensat,fsync,fdatasync,sync_file_range,truncate,"
    "ftruncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,fchownat,copy_file_range,sendfile,splice,setxattr,fsetxattr"
)
LINE = re.compile(r"(\w+)\((.*)\) += (?:-?\d+|\?)")
PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>[^>]*)>)?(?:(?:, )?"(?P<name>[^"]*)")?')

SCRIPT = """
import json, posix, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from stages import run_command
root = Path(sys.argv[2])
end = run_command(json.loads(sys.argv[3]), root)
posix.mkdir(root / "past the hook")
print(json.dumps(end))
"""


def kernel_calls(trace: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, path below `root`) of the changes in a trace of `strace -y`."""
    for line in trace.read_text().splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        name, given = match.groups()
        if name in ("open", "openat", "openat2") and not re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", given):
            continue
        if name == "unlinkat" and "AT_REMOVEDIR" in given:
            name = "rmdir"
        places = [place for place in PLACE.finditer(given) if place.group()]
        paths = [os.path.join(place["folder"] or "", place["name"] or "").rstrip("/") for place in places]
        where = paths[-1] if "link" in name or "rename" in name else paths[0]
        if where == str(root) or where.startswith(f"{root}/"):
            yield NAMES.get(name, name), os.path.relpath(where, root)


@pytest.mark.skipif(not FULL, reason="takes half a minute")
@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_the_kernel_sees_no_change_that_the_hook_does_not(tmp_path, tally):
    probe = subprocess.run([STRACE, "-o", os.devnull, "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"strace is not allowed here: {probe.stderr.strip().splitlines()[-1]}")
    source, root, trace = photos_in(tmp_path / "photos"), tmp_path / "cache", tmp_path / "trace"
    here = Path(__file__).parent
    command = ["extract", str(source), "--runs-dir", str(tmp_path / "runs"), *stages.EXTRACT]
    arguments = [json.dumps([str(here), str(here.parent), *sys.path]), str(root), json.dumps(command)]
    strace = [STRACE, "-ff", "-y", "-qq", "-s", "0", "-e", f"trace={CHANGES}", "-o", str(trace)]
    run = [*strace, sys.executable, "-c", SCRIPT, *arguments]
    end = subprocess.run(run, capture_output=True, text=True, timeout=300, check=True)
    result = json.loads(end.stdout)
    assert result["code"] == 0, result
    seen = [(NAMES.get(name, name), path) for name, path, _ in result["calls"]]
    by_process = [list(kernel_calls(file, root)) for file in tmp_path.glob("trace.*")]
    assert len(by_process) >= 3, "the loading process and threads are not traced"
    working = [calls for calls in by_process if calls]
    # The last call is made by the script, past the hook: were the kernel's not all seen, it would not be here.
    assert working == [[*seen, ("mkdir", "past the hook")]]
    tally("calls that change the disk, compared with strace", len(seen), "all seen by the hook")


def test_the_hook_sees_calls_however_they_are_made(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (tmp_path / "outside").write_bytes(b"")
    with Watch(root, reads=True) as watch:
        root.mkdir()
        os.makedirs(root / "a" / "b")
        (root / "a" / "file").write_text("text")
        (root / "a" / "file").read_text()
        (root / "a" / "link").hardlink_to(root / "a" / "file")
        (root / "a" / "file").rename(root / "moved")
        descriptor = os.open(root / "new", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"four")
        os.fsync(descriptor)
        os.close(descriptor)
        descriptor = os.open(tmp_path / "outside", os.O_WRONLY)
        os.write(descriptor, b"four")  # most likely the same number, but another file
        os.close(descriptor)
        monkeypatch.chdir(tmp_path)
        os.utime("root/new")
        (tmp_path / "outside").unlink()
        shutil.rmtree(root / "a")
    made = [(call.name, call.path) for call in watch.calls]
    assert made[:12] == [
        ("mkdir", "."),
        ("mkdir", "a"),
        ("mkdir", "a/b"),
        ("open", "a/file"),
        ("read", "a/file"),
        ("link", "a/link"),
        ("rename", "moved"),
        ("open", "new"),
        ("write", "new"),
        ("fsync", "new"),
        ("utime", "new"),
        ("read", "a"),
    ]
    assert sorted(made[12:]) == [("read", "a/b"), ("rmdir", "a"), ("rmdir", "a/b"), ("unlink", "a/link")]
    assert watch.calls[8].size == 4
    assert os.write.__name__ == "write"  # the functions are the system's own again
