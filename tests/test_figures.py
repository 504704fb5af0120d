"""Plots: pictures of the kind that was asked for, text as text, the same bytes for the same numbers."""

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from pipeline.reporting import figures
from pipeline.reporting.pictures import boxed

pytest.importorskip("matplotlib")

EPOCHS = [
    {"epoch": number, "train_accuracy": 0.5 + number / 20, "val_accuracy": 0.5 + number / 30} for number in range(1, 6)
]
DRAWN = {
    "curve": partial(
        figures.learning_curve,
        [10, 100, 1000],
        [0.3, 0.5, 0.6],
        [0.02, 0.01, 0.0],
        foretold=(lambda n: 0.7 - np.asarray(n) ** -0.3, (0.01, 0.04)),
    ),
    "confusion": partial(figures.confusion_matrix, [[8, 2], [0, 5]], ["a $x_1$ < b", "beet"]),
    "shares": partial(figures.confusion_matrix, [[8, 2], [0, 0]], ["apple", "beet"], normalised=True),
    "reliability": partial(figures.reliability_diagram, np.linspace(0.2, 1.0, 50), np.arange(50) % 3 > 0),
    "training": partial(figures.training_curves, EPOCHS),
}
WORDS = {
    "curve": "training images",
    "confusion": "a $x_1$ &lt; b",
    "shares": "% of the true class",
    "reliability": "perfectly calibrated",
    "training": "validation",
}


@pytest.mark.parametrize("name", DRAWN)
def test_an_svg_has_its_text_as_text_and_always_the_same_bytes(name):
    one = DRAWN[name](kind="svg")
    assert one.startswith(b"<?xml")
    assert WORDS[name] in one.decode()
    assert DRAWN[name](kind="svg") == one


def test_names_without_letters_in_the_font_are_told_not_warned_of():
    assert figures.unwritable(["avión", "船", "größe"]) == ["船"]
    assert figures.confusion_matrix([[8, 2], [0, 5]], ["船", "beet"], kind="png")
    assert boxed(["船", "beet"]) == ["The font of PNG plots has no letters for 船: confusion.svg shows them."]
    assert boxed(["beet"]) == []


def test_a_png_is_a_picture():
    data = DRAWN["curve"](kind="png")
    assert Image.open(io.BytesIO(data)).format == "PNG"
    assert DRAWN["curve"](kind="png") == data


def test_letters_that_the_font_lacks_raise_no_warning():
    for kind in ("png", "svg"):
        assert figures.confusion_matrix([[2, 1], [0, 3]], ["猫", "कुत्ता"], kind=kind)
