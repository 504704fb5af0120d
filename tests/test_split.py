"""Splits by hashing: each image's side depends on its content, the purpose and the seed alone."""

import numpy as np
import pytest

from pipeline.sources.split import drawn


def digests_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)


def test_the_share_drawn_is_near_the_fraction():
    for fraction in (0.1, 0.5, 0.9):
        share = drawn("test", 0, fraction, digests_of(4000)).mean()
        assert abs(share - fraction) < 4 * (fraction * (1 - fraction) / 4000) ** 0.5


def test_known_values_never_change():
    # Splits of caches already made depend on them.
    digests = (np.arange(320) % 256).astype(np.uint8).reshape(10, 32)
    sides = drawn("test", 0, 0.5, digests).tolist()
    assert sides == [True, False, True, False, True, True, False, True, True, False]


def test_a_side_does_not_depend_on_order_or_on_other_images():
    digests = digests_of(300)
    whole = drawn("test", 3, 0.3, digests)
    order = np.random.default_rng(1).permutation(300)
    assert (drawn("test", 3, 0.3, digests[order]) == whole[order]).all()
    assert (drawn("test", 3, 0.3, digests[::2]) == whole[::2]).all()
    assert (drawn("test", 3, 0.3, np.asfortranarray(digests)) == whole).all()


def test_equal_images_are_drawn_together_whatever_their_names():
    digests = np.repeat(digests_of(50), 2, axis=0)
    sides = drawn("test", 0, 0.5, digests, [f"{n}.jpg" for n in range(100)])
    assert (sides[::2] == sides[1::2]).all()


def test_a_larger_fraction_keeps_what_a_smaller_one_drew():
    digests = digests_of(500)
    small, large = drawn("test", 0, 0.1, digests), drawn("test", 0, 0.4, digests)
    assert (large[small]).all()
    assert large.sum() > small.sum()


@pytest.mark.parametrize("other", [("val", 0), ("test", 1)])
def test_purposes_and_seeds_draw_independently(other):
    digests = digests_of(4000)
    one, two = drawn("test", 0, 0.5, digests), drawn(*other, 0.5, digests)
    assert 0.4 < (one == two).mean() < 0.6


def test_the_ends_of_the_range():
    digests = digests_of(100)
    assert not drawn("test", 0, 0.0, digests).any()
    assert drawn("test", 0, 1.0, digests).all()
    assert drawn("test", 0, 0.5, digests[:0]).shape == (0,)


def test_unreadable_files_are_drawn_by_their_ids():
    ids = [f"bad/{n}.jpg" for n in range(400)]
    sides = drawn("test", 0, 0.5, np.zeros((400, 32), np.uint8), ids)
    assert 0.4 < sides.mean() < 0.6
    assert (drawn("test", 0, 0.5, np.zeros((400, 32), np.uint8), ids[::-1]) == sides[::-1]).all()


def test_readable_files_do_not_depend_on_their_ids():
    digests = digests_of(100)
    named = drawn("test", 0, 0.5, digests, [f"{n}" for n in range(100)])
    assert (named == drawn("test", 0, 0.5, digests)).all()


def test_names_that_are_not_utf8_can_be_drawn():
    name = b"\xff\xfe.jpg".decode("utf-8", "surrogateescape")
    assert drawn("test", 0, 1.0, np.zeros((1, 32), np.uint8), [name]).tolist() == [True]


def test_groups_are_drawn_whole_whatever_their_images_are():
    groups = [f"p{row // 3}" for row in range(300)]
    digests = np.random.default_rng(0).integers(0, 256, (300, 32), np.uint8)
    mine = drawn("test", 0, 0.3, digests, groups=groups)
    assert (mine.reshape(100, 3) == mine.reshape(100, 3)[:, :1]).all()
    assert 15 < mine.sum() / 3 < 45
    assert np.array_equal(mine, drawn("test", 0, 0.3, digests[::-1], groups=groups))
    assert not np.array_equal(mine, drawn("val", 0, 0.3, digests, groups=groups))
