"""How large pages of `report` are, how fast they open, and what they ask for: `make opened-report REPORTS=file.html`.

Beside the pages named it makes one of 1,000 classes, 20 images each of which half are test images.
"""

import argparse
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import pipeline

LOADS = 5


def thousand_classes(folder: Path, classes: int = 1000, images: int = 10) -> Path:
    """Make images, a colour a class and noise, train class means on their features, and return the run's page."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (classes, 3))
    for split in ("train", "test"):
        for name in range(classes):
            target = folder / "images" / split / f"class {name:04d}"
            target.mkdir(parents=True)
            for number in range(images):
                pixels = colours[name] + rng.normal(0, 24, (16, 16, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target / f"{number}.png")
    made = pipeline.extract(
        folder / "images",
        backbone="shufflenet_v2_x0_5",
        weights="none",
        image_size=32,
        mean=(0.5,),
        std=(0.5,),
        cache_dir=folder / "cache",
    )
    run = pipeline.train_head(made.path, solver="centroid", val_fraction=0.1, runs_dir=folder / "runs")
    pipeline.evaluate(run.path, runs_dir=folder / "runs")
    return Path(pipeline.report(run.path, runs_dir=folder / "runs", cache_dir=folder / "cache").path)


def opened(browser: Browser, path: Path) -> str:
    """Load a page from disk several times and say what came of it."""
    milliseconds: list[float] = []
    asked: list[str] = []
    said: list[str] = []
    for _ in range(LOADS):
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        started = time.perf_counter()
        page.goto(path.resolve().as_uri())
        milliseconds.append(1000 * (time.perf_counter() - started))
        page.close()
    others = [url for url in asked if not url.startswith(("data:", path.resolve().as_uri()))]
    return (
        f"{path.stat().st_size / 1e6:.2f} MB, loaded in {statistics.median(milliseconds):.0f} ms "
        f"[{min(milliseconds):.0f}, {max(milliseconds):.0f}], {len(others)} requests, {len(said)} console messages"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="*", type=Path)
    asked = parser.parse_args(arguments)
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with TemporaryDirectory() as folder, sync_playwright() as started:
        # Chromium refuses its sandbox to root; the pages are our own.
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for path in (*asked.reports, thousand_classes(Path(folder))):
            print(f"{path.name}: {opened(browser, path)}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
