"""Kinds of errors, their exit codes, and suggestions for names."""

import pytest

from pipeline.errors import CacheError, DataError, PipelineError, UsageError, nearest


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [(PipelineError, "failure", 1), (UsageError, "usage", 2), (DataError, "data", 3), (CacheError, "cache", 4)],
)
def test_each_kind_has_its_exit_code(kind, name, code):
    error = kind("what is wrong", "what to do")
    assert isinstance(error, PipelineError)
    assert (error.kind, error.exit_code) == (name, code)
    assert (error.message, error.hint, str(error)) == ("what is wrong", "what to do", "what is wrong")


def test_a_hint_is_not_required():
    assert PipelineError("wrong").hint == ""


def test_kinds_do_not_catch_each_other():
    assert not issubclass(UsageError, DataError | CacheError)
    assert not issubclass(DataError, UsageError | CacheError)
    assert not issubclass(CacheError, UsageError | DataError)


def test_nearest_names_what_was_probably_meant():
    assert nearest("resnet81", ["resnet18", "vgg11"]) == " Did you mean 'resnet18'?"


def test_nearest_ignores_case_and_keeps_the_known_spelling():
    assert nearest("CIFAR01", ["cifar10"]) == " Did you mean 'cifar10'?"
    assert nearest("default", ["DEFAULT"]) == " Did you mean 'DEFAULT'?"


def test_nearest_names_three_at_most_best_first():
    answer = nearest("resnet1", ["resnet18", "resnet101", "resnet152", "resnet10", "swin"])
    assert answer.startswith(" Did you mean 'resnet1")
    assert answer.count(" or ") == 2
    assert "swin" not in answer


def test_nearest_is_silent_where_nothing_is_near():
    assert nearest("zzz", ["resnet18"]) == ""
    assert nearest("resnet18", []) == ""
