"""A column of texts reads like the list it was made from, and holds no text as a Python object."""

import pickle

import numpy as np
import pytest

from pipeline.textcolumn import BLOCK, ColumnBuilder, TextColumn, bytes_text, column_of, text_bytes

ODD = ["", "a", "grüße/日本.png", bytes_text(b"caf\xe9.jpg"), "x" * 5000, "a\nb", "a,b"]


def many(n: int) -> list[str]:
    return [f"train/n{row // 100:08d}/img_{row * 7919 % 100_000:06d}.JPEG" for row in range(n)]


@pytest.mark.parametrize("texts", [[], ["one"], ODD, many(BLOCK), many(BLOCK + 1), many(3 * BLOCK - 1)], ids=len)
def test_it_reads_like_the_list(texts):
    column = TextColumn(texts)
    assert len(column) == len(texts)
    assert list(column) == texts
    assert column == texts
    assert texts == column
    assert [column[row] for row in range(len(texts))] == texts
    assert [column[row] for row in range(-len(texts), 0)] == texts
    assert column[1:-1] == texts[1:-1]
    assert column[::-2] == texts[::-2]
    assert b"".join(column.blocks()) == b"".join(text_bytes(text) + b"\0" for text in texts)
    assert pickle.loads(pickle.dumps(column)) == column
    assert column_of(column) is column
    assert bool(column) == bool(texts)
    for row in (len(texts), -len(texts) - 1):
        with pytest.raises(IndexError):
            column[row]


def test_columns_differ_where_one_text_does():
    column = TextColumn(many(600))
    assert column == TextColumn(many(600))
    assert column != TextColumn(many(601))
    assert column != [*many(599), "other"]
    assert column != "abc"
    assert column != 3
    assert repr(TextColumn("abcd")) == "<4 texts: 'a', 'b', 'c', …>"


def test_rows_are_found_by_their_text():
    texts = [*many(700), "again", "again"]
    column = TextColumn(texts)
    assert [column.index(text) for text in texts[:-1]] == list(range(701))
    assert column.index("again") == 700
    assert "train/other.jpg" not in column
    assert 7 not in column
    for text, start in (("other", 0), ("again", 701)):
        with pytest.raises(ValueError, match="is not in the column"):
            column.index(text, start)


def test_the_first_repeated_text_is_told_with_its_first_row():
    assert TextColumn(many(2000)).repeated() is None
    assert TextColumn([]).repeated() is None
    assert TextColumn([*many(1000), "b", "a", "c", "a", "b"]).repeated() == (1001, 1003)


def test_fixed_length_bytes_are_those_numpy_makes():
    texts = [*many(1000), *ODD[:4]]
    fixed = TextColumn(texts).fixed()
    assert np.array_equal(fixed, np.array([text_bytes(text) for text in texts]))
    assert fixed.dtype == "S31"
    assert TextColumn([]).fixed().dtype == TextColumn([""]).fixed().dtype == "S1"


def test_rows_are_taken_in_any_order():
    texts = many(900)
    order = np.random.default_rng(0).permutation(900)
    assert TextColumn(texts).take(order.tolist()) == [texts[row] for row in order]


def test_a_nul_is_refused():
    column = ColumnBuilder()
    column.append("a\0b")
    with pytest.raises(ValueError, match="holds a NUL"):
        TextColumn.built(column)
