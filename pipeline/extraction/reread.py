"""Images of a finished entry, decoded once more; one that is not what its features were made from is refused."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.backbones.preprocess import Preprocess
from pipeline.errors import DataError
from pipeline.loading.batch import Loaded
from pipeline.loading.loader import Loader, auto_workers
from pipeline.loading.worker import OK
from pipeline.progress import OnProgress, Progress, ignore
from pipeline.sources.source import Source


def reread(
    source: Source,
    ids: Sequence[str],
    digests: np.ndarray,
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int | None = None,
    on_progress: OnProgress = ignore,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Decode images by id and yield them in batches of one shape.

    Args:
        source: where they are now.
        ids: m of its samples.
        digests: their image digests (m, 32) uint8.
        preprocess: what happens to them.
        batch_size: images a batch.
        workers: loading processes, by default one a core.
        on_progress: called when the work on a batch is done.

    Yields:
        Positions (b,) in `ids`, and pixels (batch_size, h, w, 3) uint8, of which the first b are theirs and the
        rest zeros; they are valid until the next batch is asked for.

    Raises:
        DataError: if an image is gone or has changed, naming it.
    """
    done = 0
    with Loader(preprocess, batch_size=batch_size, workers=workers or auto_workers()) as loader:
        loader.request(range(len(ids)), lambda place: source.payload(ids[place]))
        while done < len(ids):
            batch = loader.next_batch()
            for place, item in zip(batch.rows, batch.loaded, strict=True):
                _check_unchanged(item, ids[place], digests[place])
            batch.pixels[len(batch.rows) :] = 0
            yield batch.rows, batch.pixels
            loader.release(batch)
            done += len(batch.rows)
            on_progress(Progress(done, len(ids), computed=done))


def _check_unchanged(item: Loaded, sample_id: str, digest: np.ndarray) -> None:
    """Refuse an image that is not the one features were made from: `digest` (32,) uint8."""
    if item.outcome == OK and item.digest == digest.tobytes():
        return
    what = (
        f"cannot be used any more: it {item.reason}"
        if item.outcome != OK
        else "has changed since its features were made"
    )
    raise DataError(
        f"image {sample_id} {what}", "Run the same `pipeline extract` again for the images as they are now."
    )
