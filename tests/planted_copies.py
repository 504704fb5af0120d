"""Copies of real images planted across splits, and how many of them an audit finds.

`make planted-copies IMAGES=path/to/cifar10 WEIGHTS=file` prints a line a kind; the folder has `train` and `test`, and a
folder a class in each.
"""

import argparse
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageOps

import pipeline
from pipeline.auditing.duplicates import exact_duplicates
from pipeline.auditing.leaks import COPIES
from pipeline.auditing.near import near_duplicates
from pipeline.features import Features
from pipeline.sources.resolve import open_source

Change = Callable[[Image.Image, np.random.Generator], tuple[Image.Image, str, int]]
"""From an image to a changed one, its format and JPEG quality."""


def reencoded(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, str, int]:
    """JPEG of quality 60 to 90, or one time in four PNG."""
    return image, "png" if rng.random() < 0.25 else "jpg", int(rng.integers(60, 91))


def resized(image: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, str, int]:
    """0.5 to 2 times as large, JPEG."""
    scale = 2 ** rng.uniform(-1, 1)
    size = [max(1, round(side * scale)) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC), "jpg", 90


def mirrored(image: Image.Image, _rng: np.random.Generator) -> tuple[Image.Image, str, int]:
    """Left for right, JPEG."""
    return ImageOps.mirror(image), "jpg", 90


KINDS: dict[str, Change] = {"reencoded": reencoded, "resized": resized, "mirrored": mirrored}


def plant(source: Path, folder: Path, *, originals: int, copies: int, seed: int) -> dict[frozenset[str], str]:
    """Copy a sample of train and test images to `folder`, and `copies` of each kind from train into test.

    Returns:
        The kind of each planted pair of ids; copies of one image are pairs, too.
    """
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        files = sorted((source / split).glob("*/*.*"))
        for place in rng.choice(len(files), originals // 2, replace=False).tolist():
            target = folder / files[place].relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[place], target)
    kept = sorted((folder / "train").glob("*/*.*"))
    picks = rng.choice(len(kept), (len(KINDS) + 1) * copies, replace=False).reshape(-1, copies)
    pairs = {}
    for kind, places in zip(("exact", *KINDS), picks.tolist(), strict=True):
        for place in places:
            original = kept[place]
            target = folder / "test" / original.parent.name / f"planted-{kind}-{original.stem}"
            target.parent.mkdir(parents=True, exist_ok=True)
            written = _write(original, target, KINDS.get(kind), rng)
            pairs[frozenset(path.relative_to(folder).as_posix() for path in (original, written))] = kind
    return pairs


def _write(original: Path, target: Path, change: Change | None, rng: np.random.Generator) -> Path:
    if change is None:
        return Path(shutil.copyfile(original, target.with_suffix(original.suffix)))
    with Image.open(original) as opened:
        image, suffix, quality = change(opened.convert("RGB"), rng)
    data = io.BytesIO()
    image.save(data, "PNG" if suffix == "png" else "JPEG", quality=quality)
    target = target.with_suffix(f".{suffix}")
    target.write_bytes(data.getvalue())
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="DEFAULT")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--mean", type=float, default=0.5)
    parser.add_argument("--std", type=float, default=0.5)
    parser.add_argument("--originals", type=int, default=3000)
    parser.add_argument("--copies", type=int, default=150, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    with TemporaryDirectory() as name:
        folder = Path(name) / "images"
        pairs = plant(asked.source, folder, originals=asked.originals, copies=asked.copies, seed=asked.seed)
        made = pipeline.extract(
            folder,
            backbone=asked.backbone,
            weights=asked.weights,
            image_size=asked.image_size,
            mean=(asked.mean,),
            std=(asked.std,),
            cache_dir=Path(name) / "cache",
        )
        features = pipeline.open_cache(made.path)
        found = find(features, folder)
    for kind in ("exact", *KINDS):
        planted = [pair for pair, what in pairs.items() if what == kind]
        print(f"{kind:<10} {sum(pair in found for pair in planted):,} of {len(planted):,} found")
    others = sorted(sorted(pair) for pair in found if pair not in pairs)
    print(f"precision  {1 - len(others) / len(found):.3f} if every pair that was not planted counts as wrong:")
    for pair in others:
        print(" ", *pair)


def find(features: Features, folder: Path) -> set[frozenset[str]]:
    """Return the pairs of ids that are copies, exact or near."""
    near = near_duplicates(features, open_source(str(folder)))
    copies = [*exact_duplicates(features), *(pair for pair in near if pair.kind in COPIES)]
    return {frozenset((features.ids[pair.a], features.ids[pair.b])) for pair in copies}


if __name__ == "__main__":
    main()
