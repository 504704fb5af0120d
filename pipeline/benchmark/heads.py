"""Training the head of the reference recipe on an entry, as `train-head` does."""

import statistics
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.benchmark.numbered import extract_numbers
from pipeline.benchmark.timing import Spread
from pipeline.training import train_head

EPOCHS = 5


@dataclass
class Trainings:
    """Runs of `train-head`, one a call of `measure`."""

    root: Path
    rows: int
    dim: int
    epochs: list[float] = field(default_factory=list)
    rests: list[float] = field(default_factory=list)

    def prepare(self) -> None:
        """Make the entry to train on."""
        self.cache = extract_numbers(self.root / "cache", self.rows, self.dim).cache

    def measure(self) -> float:
        """Train once; return the seconds of an epoch."""
        made = train_head(
            self.cache,
            epochs=EPOCHS,
            val_fraction=0.0,
            device="cpu",
            cache_dir=self.root / "cache",
            runs_dir=self.root / "runs",
            command="pipeline benchmark",
        )
        seconds = [epoch.seconds for epoch in made.epochs]
        self.epochs.append(statistics.median(seconds))
        self.rests.append(made.seconds - sum(seconds))
        return self.epochs[-1]

    @property
    def epoch(self) -> Spread:
        """Seconds of an epoch: of each run the median."""
        return Spread(tuple(self.epochs))

    @property
    def rest(self) -> Spread:
        """Seconds of all else: reading the entry, every byte verified, and saving the run."""
        return Spread(tuple(self.rests))
