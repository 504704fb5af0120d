"""(streaming) Training a head on an entry from disk against training it in memory: peak memory and seconds."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.benchmark.child import Child, answer_of, peak_memory
from pipeline.benchmark.figures import BYTES, SECONDS, SHARE, TIMES, Claim, Figure
from pipeline.benchmark.numbered import extract_numbers
from pipeline.benchmark.timing import OnStep, Spread, ratio, silent
from pipeline.streaming import Stream
from pipeline.training import train_head

WAYS: tuple[Stream, ...] = ("never", "always")
NAMES = {"never": "in memory", "always": "streamed"}


def train_once(cache: str, root: str, stream: Stream, **recipe: Any) -> Callable[[], dict[str, Any]]:  # noqa: ANN401
    """Return what trains a head and answers with seconds, and with memory in bytes before and at its peak."""

    def work() -> dict[str, Any]:
        import torch  # so that what libraries take is there before

        torch.ones(1)
        before = peak_memory()
        made = train_head(
            cache,
            stream=stream,
            device="cpu",
            cache_dir=Path(root) / "cache",
            runs_dir=Path(root) / "runs",
            command="benchmark",
            **recipe,
        )
        return {"seconds": made.seconds, "before": before, "peak": peak_memory()}

    return work


def measure_streaming(
    *,
    rows: tuple[int, ...] = (100_000, 600_000),
    dim: int = 1280,
    solver: str = "minibatch",
    repeats: int = 1,
    on_step: OnStep = silent,
) -> Claim:
    """Measure entries of each number of rows in turns, one epoch of minibatches; each training in its own process."""
    recipe: dict[str, Any] = {"solver": solver, **({"epochs": 1} if solver == "minibatch" else {"l2": 1.0})}
    found: dict[tuple[int, str], list[dict[str, Any]]] = {(size, way): [] for size in rows for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as folder:
        caches = {}
        for size in rows:
            on_step(f"writing {size:,} rows x {dim:,} features")
            caches[size] = extract_numbers(Path(folder) / "cache", size, dim).cache
        for number in range(1, repeats + 1):
            for size, way in found:
                on_step(f"{size:,} rows {NAMES[way]} ({number} of {repeats})")
                with Child(__name__, "train_once", cache=caches[size], root=folder, stream=way, **recipe) as child:
                    found[size, way].append(answer_of(child))
    spreads = {
        key: {name: Spread(tuple(one[name] for one in answers)) for name in ("seconds", "before", "peak")}
        for key, answers in found.items()
    }
    figures: list[Figure] = []
    for (size, way), spread in spreads.items():
        figures += [
            Figure(f"{size:,} rows {NAMES[way]}", SECONDS, spread["seconds"]),
            Figure("  peak memory", BYTES, spread["peak"]),
        ]
    small, large = spreads[rows[0], "always"], spreads[rows[-1], "always"]
    figures += [
        Figure("memory before training", BYTES, large["before"]),
        Figure("streamed peak, most / fewest rows", TIMES, ratio(large["peak"], small["peak"])),
        Figure("streamed peak / in memory, most", SHARE, ratio(large["peak"], spreads[rows[-1], "never"]["peak"])),
    ]
    size_text = " and ".join(f"{size * dim * 4 / 1e9:.1f} GB" for size in rows)
    conditions = {"rows": list(rows), "dim": dim, "solver": solver, "repeats": repeats}
    return Claim("streaming", f"{solver} head · entries of {size_text}, in the page cache", tuple(figures), conditions)
