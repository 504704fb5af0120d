"""What a sweep tried, as the run that came of it keeps it."""

from typing import Any

from pipeline.errors import CacheError
from pipeline.runs import Run
from pipeline.store.commit import read_json
from pipeline.sweeping import TABLE

SHOWN = 20


def sweep_table(run: Run, missing: list[str]) -> dict[str, Any] | None:
    """Return the settings that differ among those tried, and the best 20 of them; None where there was no sweep."""
    if "sweep" not in run.body:
        return None
    try:
        tried = read_json(run.path / TABLE)["settings"]
    except FileNotFoundError:
        missing.append(f"No table of the sweep: {run.path / TABLE} is not there.")
        return None
    except CacheError as error:
        missing.append(f"No table of the sweep: {error.message}")
        return None
    settings = [one["settings"] for one in tried]
    names = sorted({name for one in settings for name in one})
    differing = [name for name in names if len({str(one.get(name)) for one in settings}) > 1]
    rows = [
        {
            "settings": [str(one["settings"].get(name, "–")) for name in differing],
            "accuracy": one["val_accuracy"],
            "loss": one["val_loss"],
        }
        for one in tried[:SHOWN]
    ]
    return {"names": differing, "rows": rows, "tried": len(tried)}
