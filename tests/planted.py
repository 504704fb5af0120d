"""Wrong labels planted into real features, and how many of them an audit finds.

`make planted CIFAR=path/to/entry` prints a line a case: features of CIFAR-10's classes, read as animals and vehicles.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import pipeline
from pipeline import demo
from pipeline.auditing.judging import judge
from pipeline.auditing.labels import find_suspects
from pipeline.features import Features

SHARE = 0.05
ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")


@dataclasses.dataclass(frozen=True)
class Found:
    """How suspects agree with what was planted."""

    rows: int
    planted: int
    suspects: int
    precision: float
    recall: float
    confident: tuple[float, float]
    """Precision and recall of the confident ones alone."""


def plant(features: Features, seed: int, share: float = SHARE) -> tuple[Features, np.ndarray]:
    """Give a share of the train rows another label each, any other alike; return those rows too."""
    rng = np.random.default_rng(seed)
    train, c = features.rows("train"), len(features.classes)
    rows = rng.choice(train, round(share * len(train)), replace=False)
    y = features.y.numpy().copy()
    y[rows] = (y[rows] + rng.integers(1, c, len(rows))) % c
    return dataclasses.replace(features, y=torch.from_numpy(y)), rows


def find_planted(features: Features, seed: int) -> Found:
    """Plant wrong labels and look for them."""
    faulty, rows = plant(features, seed)
    learnt, _ = judge(faulty)
    found = find_suspects(learnt.probabilities, learnt.y)
    hits = np.isin(learnt.rows[found.places], rows)
    sure = hits[found.confident]
    return Found(
        len(learnt.rows),
        len(rows),
        len(hits),
        float(hits.mean()),
        float(hits.sum() / len(rows)),
        (float(sure.mean()), float(sure.sum() / len(rows))),
    )


def digits(folder: Path) -> Features:
    """scikit-learn's digits through the demo's network."""
    with resources.as_file(resources.files("pipeline") / "data" / demo.WEIGHTS) as weights:
        made = pipeline.extract(
            "digits",
            backbone=demo.ARCHITECTURE,
            weights=str(weights),
            image_size=demo.IMAGE_SIZE,
            mean=(demo.MEAN,),
            std=(demo.STD,),
            test_fraction=demo.TEST_FRACTION,
            cache_dir=folder,
        )
    return pipeline.open_cache(made.path)


def animals(features: Features) -> Features:
    """The same images in two classes."""
    places = [features.classes.index(name) for name in ANIMALS]
    y = torch.from_numpy(np.isin(features.y.numpy(), places).astype(np.int64))
    return dataclasses.replace(features, y=y, classes=("vehicle", "animal"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar", help="a cache entry of CIFAR-10 in class folders")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        cases = {"digits": digits(Path(folder))}
    if asked.cifar:
        cases["animals"] = animals(pipeline.open_cache(asked.cifar))
    for name, features in cases.items():
        for seed in range(asked.seeds):
            one = find_planted(features, seed)
            sure = "{:.3f} and {:.3f}".format(*one.confident)
            print(
                f"{name:<8} seed {seed}: {one.planted:,} of {one.rows:,} planted, {one.suspects:,} suspect, "
                f"precision {one.precision:.3f}, recall {one.recall:.3f}; confident alone {sure}"
            )


if __name__ == "__main__":
    main()
