"""The main plots as PNG or SVG: plain arrays in, bytes out, the same bytes for the same numbers.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), which colour-blind people can tell apart, and no
plot tells things apart by colour alone. Text in an SVG stays text. matplotlib is imported when the first is drawn.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.errors import UsageError
from pipeline.metrics import ECE_BINS, reliability_bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["svg", "png"]
Layout = Literal["constrained", "compressed"]

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#666666"
DPI = 160
MOST_NUMBERS = 20
"""Classes up to which cells of a confusion matrix have their number written in them."""
MOST_NAMES = 60
"""Classes up to which its axes name them."""
FONT = "DejaVu Sans"
"""Comes with matplotlib, so that bytes do not depend on the machine's fonts."""
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pipeline",
    "font.family": FONT,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
}


def require_matplotlib() -> None:
    """Do nothing where plots can be drawn.

    Raises:
        UsageError: naming the extra that is missing.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("plots need matplotlib, which is not installed", "pip install 'feature-pipeline[plots]'")


def learning_curve(
    sizes: Sequence[int],
    means: Sequence[float],
    stds: Sequence[float],
    *,
    foretold: tuple[Callable[[np.ndarray], np.ndarray], tuple[float, float]] | None = None,
    kind: Kind = "svg",
) -> bytes:
    """Draw accuracy over training-set size, with a band of one standard deviation over draws.

    Args:
        sizes: numbers of images (s,), rising.
        means: accuracies (s,), fractions.
        stds: their standard deviations (s,), 0 where there is none.
        foretold: the fitted law, accuracies of sizes, and the 95 % interval of what doubling the largest size gains.
        kind: of file.
    """

    def draw(axes: "Axes") -> None:
        mean, std = 100 * np.asarray(means), 100 * np.asarray(stds)
        axes.fill_between(sizes, mean - std, mean + std, color=BLUE, alpha=0.25, linewidth=0, label="± 1 std of draws")
        axes.plot(sizes, mean, color=BLUE, marker="o", markersize=4, label="mean of draws")
        if foretold is not None:
            _foretold(axes, sizes[-1], mean[-1], *foretold)
        axes.set_xscale("log")
        if sizes[-1] >= 10 * sizes[0]:  # else the numbers that are named are those between powers of ten
            axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("training images")
        axes.set_ylabel("validation accuracy (%)")
        axes.legend(loc="lower right")

    return _picture(draw, kind, (6.4, 4.2))


def confusion_matrix(
    counts: Sequence[Sequence[int]], classes: Sequence[str], *, normalised: bool = False, kind: Kind = "svg"
) -> bytes:
    """Draw a confusion matrix: counts (c, c), a row a true class; normalised, the percentage of each row.

    Args:
        counts: rows of class i predicted as class j.
        classes: their names.
        normalised: show shares of rows; a class without rows has a row of zeros.
        kind: of file.
    """
    table = np.asarray(counts, np.float64)
    if normalised:
        table = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = min(14.0, max(4.2, 2.0 + 0.45 * len(classes)))

    def draw(axes: "Axes") -> None:
        axes.grid(visible=False)
        image = axes.imshow(table, cmap="Blues", vmin=0)
        axes.figure.colorbar(
            image, ax=axes, fraction=0.046, pad=0.04, label="% of the true class" if normalised else "images"
        )
        ticks = range(len(classes)) if len(classes) <= MOST_NAMES else []
        names = [_text(classes[place]) for place in ticks]
        axes.set_xticks(ticks, names, rotation=90)
        axes.set_yticks(ticks, names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(classes) <= MOST_NUMBERS:
            for row, column in np.ndindex(table.shape):
                value, dark = table[row, column], table[row, column] > table.max() / 2
                axes.text(
                    column,
                    row,
                    f"{value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if dark else "black",
                )

    # Cells are square, which constrained axes do not allow for: their labels would be cut off.
    return _picture(draw, kind, (side + 0.8, side), layout="compressed")


def reliability_diagram(confidence: np.ndarray, right: np.ndarray, *, kind: Kind = "svg") -> bytes:
    """Draw accuracy over confidence in 15 bins of equal width, and beneath each how many rows are in it.

    Args:
        confidence: probability of the predicted class (n,).
        right: whether it was the true one (n,) bool.
        kind: of file.
    """
    bins = reliability_bins(confidence, right)

    def draw(axes: "Axes") -> None:
        axes.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
        axes.bar(
            [(one.bin + 0.5) * 100 / ECE_BINS for one in bins],
            [100 * one.n / len(right) for one in bins],
            100 / ECE_BINS,
            color="#CCCCCC",
            label="share of images",
        )
        mean, accuracy = ([100 * getattr(one, name) for one in bins] for name in ("confidence", "accuracy"))
        axes.plot(mean, accuracy, color=BLUE, marker="o", markersize=4, label="accuracy")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("confidence (%)")
        axes.set_ylabel("accuracy, share (%)")
        axes.legend(loc="upper left")

    return _picture(draw, kind, (4.8, 4.6))


def training_curves(epochs: Sequence[Mapping[str, Any]], *, kind: Kind = "svg") -> bytes:
    """Draw accuracy by epoch, of train rows and, where there are any, of validation rows.

    Args:
        epochs: as `train-head --json` gives them.
        kind: of file.
    """

    def draw(axes: "Axes") -> None:
        numbers = [epoch["epoch"] for epoch in epochs]
        for key, label, colour, line in (
            ("train_accuracy", "train", BLUE, "-"),
            ("val_accuracy", "validation", VERMILION, "--"),
        ):
            values = [epoch[key] for epoch in epochs]
            if None not in values:
                axes.plot(numbers, 100 * np.array(values), line, color=colour, marker="o", markersize=3, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel("accuracy (%)")
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="lower right")

    return _picture(draw, kind, (6.0, 4.0))


def _foretold(
    axes: "Axes", largest: int, measured: float, law: Callable[[np.ndarray], np.ndarray], gain: tuple[float, float]
) -> None:
    ahead = np.geomspace(largest, 2 * largest, 20)
    middle = measured + 100 * (law(ahead) - law(ahead[:1]))
    ends = measured + 100 * np.asarray(gain)
    axes.plot(ahead, middle, color=VERMILION, linestyle="--", label="foretold, with its 95 % interval")
    away = np.abs(ends - middle[-1])[:, None]
    axes.errorbar(ahead[-1:], middle[-1:], yerr=away, color=VERMILION, marker="s", markersize=4, capsize=4)


def _picture(
    draw: Callable[["Axes"], None], kind: Kind, size: tuple[float, float], layout: Layout = "constrained"
) -> bytes:
    """Return what `draw` puts on axes of so many inches as a file."""
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # not pyplot, which looks for a display and keeps figures

    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)  # see `unwritable`
        figure = Figure(figsize=size, layout=layout)
        draw(figure.add_subplot())
        file = io.BytesIO()
        # No time and no version in the file, so that equal numbers give equal bytes.
        nothing = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, dpi=DPI, metadata=nothing)
    return file.getvalue()


def unwritable(names: Sequence[str]) -> list[str]:
    """Return the names that a PNG shows boxes in, since matplotlib's font lacks their letters; an SVG has its text."""
    require_matplotlib()
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont(FONT)).get_charmap()
    return [name for name in names if any(ord(letter) not in known for letter in name)]


def _text(name: str) -> str:
    """Return a class name that matplotlib does not take for a formula, shortened."""
    short = name if len(name) <= 24 else name[:23] + "…"
    return short.replace("$", r"\$")
