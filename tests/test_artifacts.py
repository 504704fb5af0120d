"""Exported files: run on real images before they have their names, refused when they are not the model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_image, make_photos
from safetensors.torch import load_file, save_file

import pipeline
from pipeline.artifacts.check import check_artifact
from pipeline.artifacts.export import FORMATS
from pipeline.errors import CacheError, DataError, UsageError

NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "safetensors": ()}
SPACE = {"backbone": "resnet18", "weights": "none", "image_size": 32}
"""A network whose features differ between images although its weights are random."""
SIZE = 32


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, pipeline.TrainResult]:
    root = tmp_path_factory.mktemp("artifacts")
    make_photos(root / "photos", per_class=8)
    made = pipeline.extract(str(root / "photos"), cache_dir=root / "cache", workers=1, **SPACE)
    run = pipeline.train_head(made.path, runs_dir=root / "runs", epochs=2)
    pipeline.evaluate(run.path, split="train", runs_dir=root / "runs", cache_dir=root / "cache")
    return root, run


def export(trained, output: Path, **options) -> pipeline.ExportResult:
    root, run = trained
    return pipeline.export(run.path, output=output, cache_dir=root / "cache", workers=1, **options)


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory) -> dict[str, pipeline.ExportResult]:
    """One file of each format that can be written here."""
    folder = tmp_path_factory.mktemp("written")
    found = {}
    for name, packages in NEEDS.items():
        if all(_there(package) for package in packages):
            found[name] = export(trained, folder / f"model.{name}")
    return found


def _there(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


@pytest.fixture(params=NEEDS)
def result(request, written) -> pipeline.ExportResult:
    for package in NEEDS[request.param]:
        pytest.importorskip(package)
    return written[request.param]


def test_what_was_written_is_the_model(trained, result):
    check = result.check
    assert (check.prediction_agreement, check.holds, check.images) == (1.0, True, 24)
    assert check.max_abs_logit_difference <= 1e-4
    assert result.against == "cached logits"
    assert Path(result.path).stat().st_size == result.bytes


def test_it_takes_any_number_of_images_and_gives_the_cached_logits(trained, result):
    root, run = trained
    features = pipeline.open_cache(_entry(run), cache_dir=root / "cache")
    images = np.stack([_pixels(root / "photos" / name) for name in features.ids])
    runner = FORMATS[result.format].open(Path(result.path))
    logits = np.concatenate([runner(images[:1])[0], runner(images[1:8])[0], runner(images[8:])[0]])
    probabilities = runner(images)[1]
    wanted = run.head.logits(features.x).numpy()
    assert np.abs(logits - wanted).max() <= 1e-4
    assert np.allclose(probabilities, torch.from_numpy(wanted).softmax(1).numpy(), atol=1e-5)


def _entry(run) -> str:
    return json.loads((Path(run.path) / "run.json").read_text())["cache"]["id"]


def _pixels(path: Path) -> np.ndarray:
    """An image as another program would prepare it from the description alone."""
    from PIL import Image
    from torchvision.transforms import v2

    transform = v2.Compose([v2.Resize(SIZE), v2.CenterCrop(SIZE), v2.PILToTensor()])
    return transform(Image.open(path).convert("RGB")).numpy().astype(np.float32) / 255


def test_description_and_card_lie_beside_it(trained, result):
    _, run = trained
    described = json.loads(Path(f"{result.path}.json").read_text())
    assert described["classes"] == ["apple", "beet", "corn"]
    assert described["image_size"] == SIZE
    assert described["space_sha256"] == run.head.space_sha256
    assert described["check"]["prediction_agreement"] == 1.0
    assert set(described["metrics"]) == {"val", "train"}
    card = Path(f"{result.path}.md").read_text()
    for word in ("apple, beet, corn", "resnet18", f"3, {SIZE}, {SIZE}", described["space_sha256"]):
        assert word in card
    assert str(trained[0]) not in card + json.dumps(described)


def test_metadata_travels_inside_the_file(written):
    onnx = pytest.importorskip("onnx")
    stored = {item.key: item.value for item in onnx.load(written["onnx"].path).metadata_props}
    assert json.loads(stored["classes"]) == ["apple", "beet", "corn"]
    extra = {"pipeline.json": ""}
    torch.export.load(written["pt2"].path, extra_files=extra)
    inside, elsewhere = json.loads(stored["pipeline"]), json.loads(extra["pipeline.json"])
    assert {**inside, "created": ""} == {**elsewhere, "created": ""}


def test_an_opened_model_knows_what_it_is(trained, written):
    model = pipeline.load_model(written["safetensors"].path)
    assert model.description["classes"] == ["apple", "beet", "corn"]
    assert not model.training
    logits, probabilities = model(torch.zeros(2, 3, SIZE, SIZE))
    assert (logits.shape, probabilities.shape) == ((2, 3), (2, 3))
    assert torch.equal(model.network.fc.weight, trained[1].head.weight)


def test_an_altered_file_is_refused(trained, result, tmp_path):
    """One weight of the head is another."""
    altered = tmp_path / Path(result.path).name
    if result.format == "onnx":
        onnx = pytest.importorskip("onnx")
        model = onnx.load(result.path)
        [weight] = [item for item in model.graph.initializer if list(item.dims) == [3, 512]]
        values = np.frombuffer(weight.raw_data, np.float32).copy()
        values[7] += 1
        weight.raw_data = values.tobytes()
        onnx.save(model, altered)
    elif result.format == "pt2":
        program = torch.export.load(result.path)
        weight = program.state_dict["network.fc.weight"]
        weight[0, 7] += 1
        torch.export.save(program, altered)
    else:
        from safetensors import safe_open

        with safe_open(result.path, framework="pt") as file:
            metadata = file.metadata()
        tensors = load_file(result.path)
        tensors["head.weight"][0, 7] += 1
        save_file(tensors, altered, metadata)
    with pytest.raises(DataError, match="not the model of this run"):
        export(trained, altered, check_only=True)
    assert export(trained, Path(result.path), check_only=True).check.holds


@pytest.mark.parametrize("damage", [b"", b"no model", None], ids=["empty", "text", "cut"])
def test_a_damaged_file_is_refused_in_one_line(trained, result, tmp_path, damage):
    damaged = tmp_path / Path(result.path).name
    damaged.write_bytes(Path(result.path).read_bytes()[:-200] if damage is None else damage)
    with pytest.raises(DataError) as error:
        export(trained, damaged, check_only=True)
    assert str(damaged) in error.value.message
    assert "\n" not in error.value.message


def test_a_file_that_is_not_the_model_never_gets_its_name(trained, tmp_path, monkeypatch):
    """Whatever writes wrongly: here the head of another class order."""
    real = FORMATS["safetensors"].write

    def write(product, path):
        product.tensors["head.weight"] = product.tensors["head.weight"].flip(0)
        real(product, path)

    monkeypatch.setattr(FORMATS["safetensors"], "write", write)
    with pytest.raises(DataError, match="not the model"):
        export(trained, tmp_path / "model.safetensors")
    (tmp_path / "old.safetensors").write_bytes(b"old")
    with pytest.raises(DataError, match="not the model"):
        export(trained, tmp_path / "old.safetensors", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old.safetensors"]
    assert (tmp_path / "old.safetensors").read_bytes() == b"old"


def test_images_that_changed_cannot_vouch_for_a_file(trained, tmp_path):
    copy = make_photos(tmp_path / "photos", per_class=8)
    make_image(99).save(copy / "beet" / "03.jpg")
    with pytest.raises(DataError, match=r"beet/03.jpg has changed"):
        export(trained, tmp_path / "model.safetensors", source=str(copy))


def test_an_entry_stored_as_float16_is_held_against_the_plain_model(trained, tmp_path):
    root, _ = trained
    made = pipeline.extract(
        str(root / "photos"), cache_dir=tmp_path / "cache", workers=1, store_dtype="float16", **SPACE
    )
    run = pipeline.train_head(made.path, runs_dir=tmp_path / "runs", epochs=1)
    result = pipeline.export(run.path, output=tmp_path / "model.safetensors", cache_dir=tmp_path / "cache", workers=1)
    assert result.against == "logits of the plain float32 model"
    assert result.check.max_abs_logit_difference == 0


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"output": "model.onx"}, UsageError, "Did you mean 'onnx'"),
        ({"output": "model"}, UsageError, "give --format"),
        ({"output": "model.pt2", "check_images": 0}, UsageError, "check-images"),
        ({"output": "there.pt2"}, UsageError, "exists"),
        ({"output": "gone.pt2", "check_only": True}, DataError, "gone.pt2"),
        ({"output": "model.pt2", "source": "nowhere/"}, DataError, "--source"),
        ({"output": "model.pt2", "cache": "ffff"}, CacheError, "ffff"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(trained, tmp_path, monkeypatch, options, kind, said):
    monkeypatch.chdir(tmp_path)
    Path("there.pt2").touch()
    with pytest.raises(kind) as error:
        export(trained, **options)
    assert said in f"{error.value.message} {error.value.hint}"


def test_probabilities_that_are_not_the_softmax_are_refused():
    def run(images):
        logits = images.mean(axis=(2, 3))
        return logits, np.full_like(logits, 1 / 3)

    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    with pytest.raises(DataError, match="softmax"):
        check_artifact(run, [([0, 1], pixels)], np.zeros((2, 3), np.float32), "linear", "model.onnx")


@pytest.mark.parametrize("what", ["header", "kind", "version", "architecture"])
def test_safetensors_of_another_kind_are_no_model(written, tmp_path, what):
    from safetensors import safe_open

    from pipeline.digest import seal

    tensors = load_file(written["safetensors"].path)
    with safe_open(written["safetensors"].path, framework="pt") as file:
        description = json.loads(file.metadata()["pipeline"])
    changed = {
        "header": None,
        "kind": {**description, "format": "other"},
        "version": {**description, "format_version": 2},
        "architecture": {**description, "space": {**description["space"], "architecture": "torchvision/resnet34"}},
    }[what]
    metadata = None if changed is None else {"pipeline": json.dumps(seal(changed))}
    save_file(tensors, tmp_path / "model.safetensors", metadata)
    with pytest.raises(DataError) as error:
        pipeline.load_model(tmp_path / "model.safetensors")
    assert "model.safetensors" in error.value.message


def test_the_command_says_what_it_wrote(cli, trained):
    root, run = trained
    common = ("--cache-dir", root / "cache", "--workers", 1)
    done = cli("export", run.path, "-o", "model.safetensors", *common)
    assert done.code == 0, done.err
    assert "the same model" in done.out
    assert "model.safetensors.md" in done.err
    again = cli("export", run.path, "-o", "model.safetensors", *common)
    assert again.code == 2
    assert "exists" in again.err
    checked = cli("export", run.path, "-o", "model.safetensors", "--check-only", "--json", *common)
    assert json.loads(checked.out)["check"]["prediction_agreement"] == 1.0
