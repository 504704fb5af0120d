"""What belongs together: a run, the entry it is measured on, and the feature space of its head."""

from pathlib import Path

from pipeline.errors import CacheError, DataError
from pipeline.features import Features
from pipeline.heads.head import Head
from pipeline.runs import Run
from pipeline.store.catalog import find_entry
from pipeline.store.entry import Entry, open_entry


def entry_of(run: Run, cache: str | Path | None, cache_dir: Path) -> Entry:
    """Return the entry to measure a run on: the one named, else the one it was trained on.

    Raises:
        CacheError: if it is gone, or another lies in its place.
    """
    if cache is not None:
        return find_entry(cache_dir, str(cache))
    trained = run.body["cache"]
    path = Path(trained["path"])
    try:
        entry = open_entry(path) if _exists(path) else find_entry(cache_dir, trained["id"])
    except CacheError as error:
        raise CacheError(
            f"run {run.id} was trained on cache entry {trained['id']}, which is gone: {error.message}",
            f"Extract it again (pipeline extract {run.body['source']['spec']} "
            f"--backbone {run.body['backbone']['name'].rpartition('/')[2]} …), or name another with --cache.",
        ) from error
    if entry.manifest["id"][: len(trained["id"])] != trained["id"]:
        raise CacheError(f"{path} is entry {entry.id}, run {run.id} was trained on {trained['id']}", "Use --cache.")
    return entry


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a path, or with a NUL
        return False


def check_space(head: Head, features: Features, entry: Entry) -> None:
    """Refuse features of another space than the head was trained on, even of equal width.

    Raises:
        DataError: naming every field that differs.
    """
    if head.space_sha256 == features.space_sha256:
        return
    differing = [
        f"{name} {head.space.get(name)!r} against {features.space.get(name)!r}"
        for name in features.space
        if head.space.get(name) != features.space[name]
    ]
    raise DataError(
        f"the head was trained on another feature space than cache entry {entry.id}: {'; '.join(differing)}",
        "Extract with the same backbone, weights and preprocess as the head was trained with.",
    )
