"""timm's models: names, tags, transforms bit for bit, weights from files; without timm one line says what to do."""

import sys

import numpy as np
import pytest
import torch
from conftest import make_image

from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.preprocess import Preprocess
from pipeline.backbones.registry import TIMM, find_backbones, find_family
from pipeline.engines.reference import ReferenceEngine
from pipeline.errors import DataError, UsageError
from pipeline.threads import cpu_threads

timm = pytest.importorskip("timm")
NAME = "timm/test_vit"


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are slower with two threads, much slower on a busy machine."""
    with cpu_threads(1):
        yield


def seen_by(preprocess: Preprocess, image) -> torch.Tensor:
    engine = ReferenceEngine(torch.nn.Identity(), preprocess, torch.device("cpu"))
    return engine.scaled(np.stack([preprocess.pixels(image)]))[0]


def transform_of(**config):
    return timm.data.create_transform(**timm.data.resolve_data_config(config))


def test_the_transform_of_every_kind_of_weights_gives_what_timms_own_gives():
    image = make_image(0, (61, 47))
    kinds, refused = {}, []
    for name in timm.list_pretrained():
        config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
        if config["input_size"][1] != config["input_size"][2]:
            refused.append(name)
            with pytest.raises(UsageError, match="is for images of 3 x"):
                TIMM.preprocess(name, "DEFAULT")
            continue
        made, _ = TIMM.preprocess(name, "DEFAULT")
        kinds.setdefault((made.mode, made.interpolation, made.crop == made.resize, made.mean), (made, config))
    assert {kind[0] for kind in kinds} == {"shortest", "squash", "border"}
    assert len(kinds) > 15
    assert len(refused) < 20
    for made, config in kinds.values():
        assert torch.equal(seen_by(made, image), timm.data.create_transform(**config)(image)), config


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.77])
@pytest.mark.parametrize("size", [(61, 47), (47, 61), (50, 50), (200, 33), (300, 301)])
def test_every_mode_of_cropping_agrees_for_images_of_any_form(mode, share, size):
    mean, std = (0.2, 0.5, 0.7), (0.3, 0.2, 0.1)
    config = {"input_size": (3, 48, 48), "crop_pct": share, "crop_mode": mode, "mean": mean, "std": std}
    names = {"center": "shortest", "squash": "squash", "border": "border"}
    made = Preprocess(int(48 / share), 48, "bicubic", mean, std, names[mode])
    image = make_image(1, size)
    assert torch.equal(seen_by(made, image), transform_of(**config)(image))
    assert Preprocess.from_json(made.to_json()) == made


def test_mode_is_in_the_json_only_where_it_is_not_the_usual_one():
    usual = Preprocess(9, 8, "bilinear", (0.5,) * 3, (0.5,) * 3)
    assert set(usual.to_json()) == {"resize", "crop", "interpolation", "mean", "std", "colour", "decoder"}
    other = Preprocess(9, 8, "bilinear", (0.5,) * 3, (0.5,) * 3, "squash")
    assert other.to_json() == {**usual.to_json(), "mode": "squash"}
    with pytest.raises(ValueError, match="mode 'stretch'"):
        Preprocess(9, 8, "bilinear", (0.5,) * 3, (0.5,) * 3, "stretch")
    with pytest.raises(ValueError, match="none that this version knows"):
        Preprocess.from_json({**usual.to_json(), "mode": "shortest"})


def test_a_backbone_is_described_by_its_default_cut():
    backbone = load_backbone(NAME, weights="none")
    assert (backbone.name, backbone.layer, backbone.pool, backbone.row_shape) == (NAME, "input:head", "none", (64,))
    assert backbone.preprocess_from == NAME
    backbone.check_image_size()
    backbone.check_frozen()
    assert load_backbone(NAME, weights="none").weights_digest == backbone.weights_digest


def test_a_network_of_fixed_size_is_built_for_the_size_that_is_asked_for():
    backbone = load_backbone(NAME, weights="none", image_size=64)
    backbone.check_image_size()
    assert backbone.network(torch.zeros(1, 3, 64, 64)).shape == (1, 64)
    with pytest.raises(UsageError, match=r"test_vit cannot .* 65 px"):
        load_backbone("timm/test_vit", weights="none", image_size=65).check_image_size()


def test_distilled_heads_that_share_their_input_give_it_once():
    alike = load_backbone("timm/efficientformerv2_s0", weights="none")
    assert (alike.layer, alike.row_shape) == ("input:head+head_dist", (176,))
    apart = load_backbone("timm/deit_tiny_distilled_patch16_224", weights="none", image_size=32)
    assert (apart.layer, apart.row_shape) == ("input:head+head_dist", (2 * 192,))


def test_a_network_without_a_classifier_gives_its_output():
    backbone = load_backbone("timm/eva02_tiny_patch14_224", weights="none", image_size=28)
    assert (backbone.layer, backbone.pool, backbone.row_shape) == ("output", "none", (192,))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("timm/resnet18x", "unknown backbone 'timm/resnet18x'.*Did you mean 'resnet18'"),
        ("timm/resnet18.a1_in2k", "no weights 'a1_in2k' for resnet18.*Did you mean 'a1_in1k'"),
        ("convnextv2_tiny", "Did you mean 'timm/convnextv2_tiny'"),
    ],
)
def test_unknown_names_and_tags_are_met_with_the_nearest(asked, said):
    with pytest.raises(UsageError, match=said):
        find_family(asked)


def test_a_tag_can_be_in_the_name_or_in_the_weights():
    by_name, _ = TIMM.preprocess("vit_base_patch16_224.augreg_in1k", "DEFAULT")
    assert TIMM.preprocess("vit_base_patch16_224", "augreg_in1k")[0] == by_name
    assert TIMM.preprocess("vit_base_patch16_224", "orig_in21k")[1].endswith("vit_base_patch16_224.orig_in21k")


def test_weights_come_from_a_file_with_or_without_its_classifier(tmp_path):
    torch.manual_seed(5)
    state = timm.create_model("test_vit").state_dict()
    torch.save(state, tmp_path / "whole.pth")
    torch.save({key: value for key, value in state.items() if not key.startswith("head.")}, tmp_path / "cut.pth")
    whole = load_backbone(NAME, weights=str(tmp_path / "whole.pth"))
    assert whole.weights_digest == load_backbone(NAME, weights=str(tmp_path / "cut.pth")).weights_digest
    assert whole.weights_digest != load_backbone(NAME, weights="none").weights_digest
    with pytest.raises(DataError, match="lacks"):
        torch.save({"head.weight": torch.zeros(3, 64)}, tmp_path / "head.pth")
        load_backbone(NAME, weights=str(tmp_path / "head.pth"))
    with pytest.raises(UsageError, match="unknown weights 'r160_in2k' for timm/test_vit.*Did you mean 'r160_in1k'"):
        load_backbone(NAME, weights="r160_in2k")


def test_a_failed_download_is_one_line(monkeypatch):
    def no_network(*_args, **_more):
        raise OSError("no network\nand a long story")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", no_network)
    with pytest.raises(DataError, match="the weights of timm/test_vit are not on this disk.*no network$") as caught:
        load_backbone(NAME)
    assert "--weights FILE" in caught.value.hint


def test_a_network_without_any_weights_says_so():
    with pytest.raises(DataError, match="timm has no weights for convnextv2_small"):
        load_backbone("timm/convnextv2_small")


def test_listing_tells_sizes_of_a_narrow_pattern_without_memory():
    (info,) = find_backbones("timm/test_vit3")
    assert (info.name, info.image_size, info.features) == ("timm/test_vit3", 160, 96)
    assert info.parameters == sum(p.numel() for p in timm.create_model("test_vit3").parameters())
    assert info.weights == ("r160_in1k",)
    assert info.downloaded == ()
    many = find_backbones("timm/")
    assert len(many) > 1000
    assert many[0].features == 0


def test_without_timm_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="timm is not installed") as caught:
        find_family("timm/resnet18")
    assert caught.value.hint == "pip install 'feature-pipeline[timm]'"
