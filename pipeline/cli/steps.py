"""What to do next with an entry."""

from pathlib import Path

from pipeline.store.entry import Entry


def after_features(cache: str, cache_dir: Path, *, labelled: bool, tunes: bool | None) -> str:
    """Return the command that fits an entry.

    `tunes` says whether fine-tuning can start from its rows; None of vectors, on which heads are trained.
    """
    where = cache_dir_words(cache_dir)
    if tunes is not None:
        return f"pipeline {'finetune' if labelled and tunes else 'cache info'} {cache}{where}"
    return f"pipeline train-head {cache}{where}" if labelled else f"pipeline predict RUN --cache {cache}{where}"


def after_entry(entry: Entry, cache_dir: Path) -> str:
    """Return the same for an entry that is there; whether fine-tuning can start within its network `finetune` finds."""
    tunes = None if len(entry.space.row_shape) == 1 else entry.space.pool == "none"
    plain = entry.id_in(entry.space.of_view("", 0))  # of a view that of the images themselves
    return after_features(plain, cache_dir, labelled=bool(entry.classes), tunes=tunes)


def cache_dir_words(cache_dir: Path) -> str:
    """Return the option that a command needs where the cache is not in its usual place."""
    return "" if cache_dir == Path("cache") else f" --cache-dir {cache_dir}"


def runs_dir_words(runs_dir: Path) -> str:
    """Return the option that a command needs where runs are not in their usual place."""
    return "" if runs_dir == Path("runs") else f" --runs-dir {runs_dir}"
