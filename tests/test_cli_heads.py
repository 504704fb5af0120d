"""`train-head` with every solver: what is written, said and refused, and that all that takes runs takes it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_photos
from torch import nn

import pipeline
from pipeline.errors import DataError, UsageError
from pipeline.heads.reading import read_head
from pipeline.heads.settings import OPTIONS

SOLVERS = {
    "exact": ["--solver", "exact", "--l2", "0.1", "--class-weight", "balanced"],
    "exact by C": ["--solver", "exact", "--C", "0.01", "--l2-norm"],
    "ridge": ["--solver", "ridge", "--standardize"],
    "ridge by l2": ["--solver", "ridge", "--l2", "3.0"],
    "knn": ["--solver", "knn", "--k", "3", "--standardize"],
    "centroid": ["--solver", "centroid"],
    "mlp": ["--hidden", "16", "--dropout", "0.2", "--epochs", "3", "--early-stopping", "2", "--standardize"],
    "minibatch": ["--schedule", "cosine", "--warmup-epochs", "1", "--sampling", "balanced", "--label-smoothing", "0.1"],
}
WORDS = {
    "exact": "exact l2 0.1", "exact by C": "l2n", "ridge": "ridge l2", "ridge by l2": "ridge l2 3 ", "knn": "3-nn std",
    "centroid": "centroid", "mlp": "mlp 16 adam", "minibatch": "adam 0.001 x5",
}  # fmt: skip
FACTS = {
    "exact": {"l2", "C", "objective", "gradient_norm_ratio", "iterations", "products"},
    "ridge": {"l2", "alpha", "scale", "scaled_on", "path"},
    "ridge by l2": {"l2", "alpha", "scale", "scaled_on"},
    "knn": {"rows"},
    "centroid": {"scale", "scaled_on"},
    "mlp": {"best_epoch"},
    "minibatch": set(),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("heads")
    make_photos(root / "photos", per_class=16)
    pipeline.extract(
        str(root / "photos"), cache_dir=root / "cache", workers=1, test_fraction=0.25, backbone="resnet18",
        weights="none", image_size=32,
    )  # fmt: skip
    return root


@pytest.fixture
def run(cli, place):
    """A command on the entry that all share, with runs of its own."""

    def run(*arguments):
        return cli(*arguments, "--cache-dir", place / "cache")

    return run


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_makes_a_run_that_everything_takes(run, cli, place, name):
    told = run("train-head", "latest", *SOLVERS[name], "--val-fraction", "0.3", "--json")
    assert told.code == 0, told.err
    document = json.loads(told.out)
    assert {"run", "path", "epochs", "metrics", "settings", "solver"} <= set(document)
    assert isinstance(document["epochs"], list)
    assert len(document["epochs"]) == {"knn": 0, "minibatch": 5}.get(name, len(document["epochs"]))
    for epoch in document["epochs"]:
        assert set(epoch) == {"epoch", "seconds", "train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    if name in ("exact", "ridge", "centroid"):
        [epoch] = document["epochs"]
        assert epoch["val_accuracy"] == document["metrics"]["accuracy"]
        assert epoch["val_loss"] == pytest.approx(document["metrics"]["nll"], rel=1e-4)
    assert set(document["solver"]) == FACTS.get(name, FACTS["exact"])
    head = read_head(Path(document["path"]))
    evaluated = json.loads(run("evaluate", "latest", "--end-to-end", "--json", "--workers", "1").out)
    assert evaluated["end_to_end"]["prediction_agreement"] == 1.0
    assert evaluated["end_to_end"]["max_abs_logit_difference"] <= 1e-4
    assert WORDS[name] in cli("runs").out
    features = pipeline.open_cache(cache_dir=place / "cache")
    x, y = (torch.from_numpy(array) for array in features.numpy("test"))
    assert float((head.logits(x).argmax(1) == y).double().mean()) == evaluated["metrics"]["accuracy"]


def test_the_value_that_validation_chose_is_in_the_settings(run):
    document = json.loads(run("train-head", "latest", "--solver", "ridge", "--val-fraction", "0.3", "--json").out)
    path = document["solver"]["path"]
    best = max(path, key=lambda item: (item["val_accuracy"], item["l2"]))
    assert document["settings"]["l2"] == document["solver"]["l2"] == best["l2"]
    assert document["metrics"]["accuracy"] == pytest.approx(best["val_accuracy"])


def test_what_people_see(run):
    told = run("train-head", "latest", "--solver", "exact", "--standardize", "--val-fraction", "0.3")
    assert "standardised · linear · logistic regression to its optimum · C 1 · cpu" in told.err
    assert "optimum in" in told.out
    assert "of the start's" in told.out
    told = run("train-head", "latest", "--solver", "knn", "--k", "3")
    assert "3 nearest neighbours by cosine" in told.err
    assert "train loss" not in told.err
    told = run("train-head", "latest", "--hidden", "8", "--epochs", "9", "--early-stopping", "1", "--lr", "0.5")
    assert "MLP of 8 hidden units" in told.err
    assert "kept of" in told.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--solver", "ridge", "--epochs", "5"], "--epochs does not go with --solver ridge"),
        (["--solver", "ridge", "--val-fraction", "0"], "ridge chooses --l2 on validation rows, and there are none"),
        (["--early-stopping", "2", "--val-fraction", "0"], "--early-stopping goes by validation rows"),
        (["--solver", "knn", "--k", "1000"], "--k 1000 neighbours are asked for"),
        (["--solver", "exact", "--C", "1", "--l2", "1"], "--l2 and --C say the same"),
    ],
)
def test_wishes_that_make_no_sense_are_one_line(run, arguments, said):
    told = run("train-head", "latest", *arguments)
    assert (told.code, told.out) == (2, "")
    assert said in told.err
    assert told.err.count("error:") == 1
    assert not Path("runs").exists()


def test_an_experiment_file_says_the_solver(cli, place):
    Path("a.toml").write_text(
        f'[extract]\nsource = "{place / "photos"}"\nbackbone = "resnet18"\nweights = "none"\nimage_size = 32\n'
        f'test_fraction = 0.25\n[head]\nsolver = "ridge"\nl2 = 0.5\n'
    )
    made = json.loads(cli("run", "a.toml", "--set", f"cache_dir={place / 'cache'}", "--json").out)
    assert made["train_head"]["settings"]["solver"] == "ridge"
    assert made["extract"]["computed"] == 0
    refused = cli("run", "a.toml", "--epochs", "3")
    assert (refused.code, "head: --epochs does not go with --solver ridge" in refused.err) == (2, True)


def forms(dim: int) -> dict:
    torch.manual_seed(0)
    linear = nn.Linear(dim, 3)
    mlp = nn.Sequential(nn.Linear(dim, 5), nn.ReLU(), nn.Dropout(0.4), nn.Linear(5, 3))
    return {
        "linear": linear,
        "without bias": nn.Linear(dim, 3, bias=False),
        "mlp": mlp,
        "arrays": (linear.weight.detach().double().numpy(), linear.bias.detach().numpy()),
    }


@pytest.mark.parametrize("form", forms(1))
def test_a_head_of_ones_own_is_a_run(run, cli, place, form):
    features = pipeline.open_cache(cache_dir=place / "cache")
    own = forms(features.x.shape[1])[form]
    made = pipeline.save_head(own, cache_dir=place / "cache", name="mine", settings={"lr": 3})
    head = read_head(made.path)
    network = forms(features.x.shape[1])["linear"] if form == "arrays" else own
    with torch.no_grad():
        assert torch.allclose(head.logits(features.x), network.eval()(features.x), atol=1e-6)
    told = run("evaluate", "0001", "--end-to-end", "--workers", "1")
    assert (told.code, "the same model" in told.out) == (0, True)
    assert "own" in cli("runs").out
    assert pipeline.fuse(made.path)(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    if isinstance(own, nn.Module):  # later training does not reach into the run
        nn.init.zeros_(next(own.parameters()))
        assert torch.equal(read_head(made.path).logits(features.x), head.logits(features.x))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: nn.Linear(d + 1, 3), "the head maps {more} features to 3 outputs, the entry has features"),
        (lambda d: nn.Linear(d, 4), "to 4 outputs"),
        (lambda d: nn.Sequential(nn.Linear(d, 5), nn.Tanh(), nn.Linear(5, 3)), "Linear, Tanh, Linear cannot be saved"),
        (lambda d: nn.Sequential(nn.Dropout(), nn.Linear(d, 5), nn.ReLU(), nn.Linear(5, 3)), "cannot be saved"),
        (lambda d: (torch.zeros(3, d), torch.zeros(2)), "outputs"),
        (lambda d: "weights", "a head of type str cannot be saved"),
    ],
)
def test_a_head_that_cannot_be_saved_says_why(cli, place, make, said):
    dim = pipeline.open_cache(cache_dir=place / "cache").x.shape[1]
    with pytest.raises(UsageError) as caught:
        pipeline.save_head(make(dim), cache_dir=place / "cache")
    assert said.format(more=dim + 1) in caught.value.message
    assert not Path("runs").exists()


def test_one_row_of_two_classes_is_the_second_against_zero():
    from sklearn.linear_model import LogisticRegression

    from pipeline.heads.own import own_head

    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = (rng.normal(size=(60, 4)) + y[:, None]).astype(np.float32)
    oracle = LogisticRegression().fit(x, y)
    head = own_head((oracle.coef_, oracle.intercept_), ("no", "yes"), {}, "5" * 64, (4,))
    found = head.logits(torch.from_numpy(x)).softmax(1).numpy()
    assert np.allclose(found, oracle.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("name", ["exact by C", "knn", "mlp"])
def test_every_kind_of_head_can_be_exported(run, name):
    assert run("train-head", "latest", *SOLVERS[name], "--val-fraction", "0.3").code == 0
    told = run("export", "latest", "-o", "model.safetensors", "--workers", "1")
    assert (told.code, "the same model" in told.out) == (0, True), told.err
    logits, probabilities = pipeline.load_model("model.safetensors")(torch.rand(2, 3, 32, 32))
    assert torch.allclose(logits.softmax(1), probabilities)


def test_the_page_on_heads_names_every_option_and_every_fact():
    page = (Path(pipeline.__file__).parent.parent / "docs" / "HEADS.md").read_text()
    options = {option for owned in OPTIONS.values() for option in owned} | {"standardize", "l2_norm"}
    for option in options:
        assert f"--{option.replace('_', '-')}" in page, option
    for fact in set().union(*FACTS.values()):
        assert f"`{fact}`" in page, fact


def test_a_run_of_an_unknown_solver_is_told(cli, place):
    from pipeline.runs import check_run, open_run, save_run

    made = pipeline.save_head(forms(512)["linear"], cache_dir=place / "cache")
    for settings, said in (({"solver": "forest"}, "solver 'forest' is not one of"), ({"solver": "knn"}, "field 'k'")):
        body = {**open_run(made.path).body, "settings": settings}
        other = save_run(Path("runs"), "", body, {})
        with pytest.raises(DataError, match=said):
            check_run(other)
    assert "0002" not in cli("runs").out
