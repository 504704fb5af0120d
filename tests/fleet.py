"""Several workers on one extraction, forked from a process that has imported torch: quick to start, quick to kill.

`python fleet.py SPEC`, where SPEC is JSON: `options` of `pipeline.extract`, `workers` to start (`I/N` each), `kills`
of random workers, each after `every` seconds and replaced; with `together` none begins before all have planned.
Prints a list of what each worker returned, or None.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def run_fleet(source, cache, workers, *, environment=None, **spec):
    """Run `workers` (I/N each) to their end in a process of their own; return what each returned."""
    options = {
        "backbone": "sleepy_network:network",
        "cache_dir": str(cache),
        "batch_size": 4,
        "shard_rows": 8,
        "workers": 1,
        "engine": "reference",
        **spec.pop("options", {}),
    }
    told = {"source": str(source), "options": options, "workers": workers, **spec}
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(told)],
        env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _start(told, worker, folder):
    process = os.fork()
    if process:
        return process
    import pipeline

    def wait_for_all(_):
        (folder / f"planned-{os.getpid()}").touch()
        while len(list(folder.glob("planned-*"))) < len(told["workers"]):
            time.sleep(0.005)

    code = 1
    try:
        on_plan = wait_for_all if told.get("together") else None
        result = pipeline.extract(told["source"], worker=worker, on_plan=on_plan, **told["options"])
        (folder / str(os.getpid())).write_text(json.dumps(result.to_json()))
        code = 0
    except BaseException as error:  # noqa: BLE001 - a forked process must not go on as its parent
        sys.stderr.write(f"{worker}: {type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def main():
    import tempfile

    import torch  # noqa: F401 - once for all workers
    import torchvision  # noqa: F401

    import pipeline.launch.extract  # noqa: F401
    from pipeline.store import statindex

    statindex.GRANULARITY_NS = -(10**18)  # what workers say of files made a moment ago is believed, as of old ones
    told = json.loads(sys.argv[1])
    rng = random.Random(told.get("seed", 0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running = {_start(told, worker, folder): worker for worker in told["workers"]}
        started = list(running)
        kills, every = told.get("kills", 0), told.get("every", 0.1)
        killed: set[int] = set()
        due = time.monotonic() + every
        while running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process:
                worker = running.pop(process)
                if process in killed:
                    started.append(_start(told, worker, folder))
                    running[started[-1]] = worker
                elif status:
                    sys.stderr.write(f"{worker}: status {status}\n")
            elif kills and time.monotonic() > due:
                due, kills = time.monotonic() + every * rng.uniform(0.5, 1.5), kills - 1
                unlucky = rng.choice(sorted(running))
                killed.add(unlucky)
                os.kill(unlucky, signal.SIGKILL)
            else:
                time.sleep(0.005)
        results = [folder / str(process) for process in started]
        print(json.dumps([json.loads(path.read_text()) if path.exists() else None for path in results]))


if __name__ == "__main__":
    main()
