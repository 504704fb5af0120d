"""Options of a head: which belong to which solver, and what makes no sense together."""

import pytest

from pipeline.errors import UsageError
from pipeline.heads.settings import OPTIONS, HeadSettings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"solver": "ridge", "epochs": 5},
            "--epochs does not go with --solver ridge, it belongs to --solver minibatch",
        ),
        ({"solver": "knn", "l2": 1.0}, "--l2 does not go with --solver knn, it belongs to --solver exact or ridge"),
        ({"solver": "centroid", "class_weight": "none"}, "--class-weight does not go with --solver centroid"),
        ({"k": 5}, "--k does not go with --solver minibatch, it belongs to --solver knn"),
        ({"solver": "lasso"}, "unknown solver 'lasso'"),
        ({"solver": "ridg"}, "Did you mean 'ridge'"),
        ({"class_weight": "heavy"}, "unknown class-weight 'heavy'"),
        ({"learning_rate": 1.0}, "unknown head setting 'learning_rate'"),
        ({"solver": "exact", "l2": 1.0, "C": 1.0}, "--l2 and --C say the same"),
        ({"solver": "exact", "l2": 0.0}, "l2 must be from 1e-100"),
        ({"solver": "exact", "C": float("inf")}, "C must be from 1e-100"),
        ({"solver": "knn", "k": 0}, "k must be at least 1"),
        ({"solver": "knn", "temperature": 0.0}, "temperature must be above 0"),
        ({"solver": "knn", "l2_norm": True}, "leave out --l2-norm"),
        ({"class_weight": "balanced", "sampling": "balanced"}, "choose one"),
        ({"warmup_epochs": 5}, r"warmup-epochs must be below epochs \(5\)"),
        ({"warmup_epochs": -1}, "warmup-epochs must be at least 0"),
        ({"early_stopping": -1}, "early-stopping must be at least 0"),
        ({"label_smoothing": 1.0}, "label-smoothing must be"),
        ({"hidden": -1}, "hidden must be at least 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_options_without_meaning_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        HeadSettings.of(**given)


def test_a_value_that_is_no_default_is_refused_by_the_constructor_too():
    assert HeadSettings(solver="ridge", epochs=5).solver == "ridge"
    with pytest.raises(UsageError, match="--epochs does not go with --solver ridge"):
        HeadSettings(solver="ridge", epochs=6)
    with pytest.raises(UsageError, match="--lr does not go with --solver knn"):
        HeadSettings.of(HeadSettings(lr=0.1), solver="knn")


def test_given_options_win_over_those_of_the_base():
    base = HeadSettings(solver="exact", C=2.0, standardize=True)
    assert HeadSettings.of(base, C=3.0) == HeadSettings(solver="exact", C=3.0, standardize=True)
    assert HeadSettings.of(base) == base


@pytest.mark.parametrize("solver", OPTIONS)
def test_a_run_remembers_the_options_of_its_solver_and_no_others(solver):
    kept = HeadSettings(solver=solver).to_json()
    assert set(kept) == {"solver", "standardize", "l2_norm", *OPTIONS[solver]}
    assert HeadSettings.of(**kept) == HeadSettings(solver=solver)
