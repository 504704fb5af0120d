"""The demo's promises, on this machine."""

import json
from pathlib import Path

import pipeline


def test_demo_keeps_its_promises(cli):
    result = cli("demo", "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert document["accuracy"] >= 0.97
    assert document["accuracy"] > document["raw_pixel_accuracy"] > 0.9
    assert document["parity"]["head_weights_equal"]
    assert document["parity"]["features_equal"]
    assert document["parity"]["max_abs_weight_difference"] == 0.0
    assert document["end_to_end"]["prediction_agreement"] == 1.0
    assert document["end_to_end"]["max_abs_logit_difference"] <= 1e-4
    assert document["speedup_per_epoch"] > 1
    assert not list(Path.cwd().iterdir())


def test_bundled_weights_are_small_and_say_what_they_are():
    from safetensors import safe_open

    from pipeline.demo import WEIGHTS

    path = Path(pipeline.__file__).parent / "data" / WEIGHTS
    assert path.stat().st_size <= 2_000_000
    with safe_open(path, "pt") as file:
        about = file.metadata()
        assert not [key for key in file.keys() if key.startswith("fc.")]  # noqa: SIM118 - no iterator
    assert about["architecture"] == "shufflenet_v2_x0_5"
    assert about["image_size"] == "64"
    assert float(about["test_accuracy"]) > 0.4
