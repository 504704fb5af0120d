"""What to do next with an entry."""

from pathlib import Path


def after_features(cache: str, cache_dir: Path, *, labelled: bool) -> str:
    """Return the command that fits an entry: only labelled features can train a head."""
    where = cache_dir_words(cache_dir)
    return f"pipeline train-head {cache}{where}" if labelled else f"pipeline predict RUN --cache {cache}{where}"


def cache_dir_words(cache_dir: Path) -> str:
    """Return the option that a command needs where the cache is not in its usual place."""
    return "" if cache_dir == Path("cache") else f" --cache-dir {cache_dir}"


def runs_dir_words(runs_dir: Path) -> str:
    """Return the option that a command needs where runs are not in their usual place."""
    return "" if runs_dir == Path("runs") else f" --runs-dir {runs_dir}"
