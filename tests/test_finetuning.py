"""Fine-tuning as a verb: its runs are like any others, it resumes to the same bits, and refuses what it cannot do."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BACKBONE, SPACE, make_photos
from entries import everything
from torchvision import models

import pipeline
from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.tail import make_tail
from pipeline.errors import DataError, UsageError
from pipeline.finetuning.scaling import scaled
from pipeline.finetuning.settings import FinetuneSettings
from pipeline.heads.minibatch import Epoch
from pipeline.heads.reading import read_head

RECIPE = {"epochs": 3, "batch_size": 8, "lr": 0.01, "backbone_lr": 0.001, "device": "cpu", "checkpoint_seconds": 0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("finetuning") / "photos")


@pytest.fixture(scope="module")
def cut(photos) -> pipeline.ExtractResult:
    """Maps (192, 1, 1) of the last stage, stored as float16."""
    return pipeline.extract(
        str(photos), **SPACE, layer="stage3", pool="none", store_dtype="float16", batch_size=8, workers=1,
        cache_dir=photos.parent / "cache", engine="reference", test_fraction=0.2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tuned(cut, tmp_path_factory) -> pipeline.FinetuneResult:
    return pipeline.finetune(cut.path, **RECIPE, runs_dir=tmp_path_factory.mktemp("runs"))


def bits(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("tail.safetensors", "head.safetensors", "head.json")}


def test_layers_and_head_are_trained_and_nothing_else(cut, tuned):
    state = models.shufflenet_v2_x0_5().state_dict()
    torch.manual_seed(0)
    first = models.shufflenet_v2_x0_5().state_dict()
    tail = tuned.head.tail.state_dict()
    assert set(tail) == {name for name in state if name.startswith(("stage4.", "conv5."))}
    moved = {name for name, one in tail.items() if not torch.equal(one, first[name])}
    assert "conv5.0.weight" in moved
    assert not {name for name in moved if "running" in name}
    body = json.loads((Path(tuned.path) / "run.json").read_text())
    assert body["settings"]["solver"] == "finetune"
    assert body["settings"]["bn"] == "frozen"
    assert len(body["epochs"]) == 3
    assert tuned.epochs[-1].train_loss < tuned.epochs[0].train_loss


def test_batchnorm_statistics_move_on_request(cut, tuned, tmp_path):
    moving = pipeline.finetune(cut.path, **RECIPE, bn="train", runs_dir=tmp_path)
    frozen, tail = tuned.head.tail.state_dict(), moving.head.tail.state_dict()
    assert not torch.equal(tail["conv5.1.running_mean"], frozen["conv5.1.running_mean"])


def test_a_run_is_read_as_it_was_written(cut, tuned):
    x = pipeline.open_cache(cut.path).x
    kept = x.clone()
    assert torch.equal(read_head(Path(tuned.path)).logits(x), tuned.head.logits(x))
    assert torch.equal(x, kept)


def test_the_run_is_used_like_any_other(photos, cut, tuned, tmp_path):
    places = {"runs_dir": Path(tuned.path).parent, "cache_dir": Path(cut.path).parent}
    measured = pipeline.evaluate(tuned.run, **places, end_to_end=True, workers=1)
    proof = measured.end_to_end
    assert proof.precision == "float16"
    assert proof.max_abs_logit_difference < 0.01
    # Fused, it is torchvision's own network: the trained layers and the head lie where the original's were.
    network = pipeline.fuse(tuned.run, runs_dir=places["runs_dir"])
    plain = models.shufflenet_v2_x0_5(num_classes=3).eval()
    plain.load_state_dict(network.state_dict())
    made = pipeline.export(tuned.run, output=tmp_path / "model.safetensors", **places, workers=1)
    assert made.check.max_abs_logit_difference < 1e-4
    images = torch.rand(2, 3, 32, 32)
    loaded = pipeline.load_model(made.path)
    with torch.inference_mode():
        wanted = plain((images - loaded.mean) / loaded.std)
        assert torch.allclose(loaded(images)[0], wanted, atol=1e-5)
    [said] = pipeline.predict(tuned.run, [next(photos.rglob("*.jpg"))], runs_dir=places["runs_dir"], workers=1)
    assert said.top[0][0] in ("apple", "beet", "corn")
    page = pipeline.report(tuned.run, **places, images=False)
    assert Path(page.path).is_file()


class Killed(Exception):
    pass


def stop_after(epochs: int) -> Callable[[Epoch], None]:
    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == epochs:
            raise Killed

    return on_epoch


@pytest.mark.parametrize(
    "more",
    [
        {"hflip": 0.5, "schedule": "cosine", "early_stopping": 2, "bn": "train"},
        {"optimizer": "sgd", "momentum": 0.9, "stream": "always", "engine": "reference"},
    ],
)
def test_what_is_interrupted_ends_in_the_same_bits(cut, tmp_path, more):
    whole = pipeline.finetune(cut.path, **RECIPE, **more, runs_dir=tmp_path / "whole")
    with pytest.raises(Killed):
        pipeline.finetune(cut.path, **RECIPE, **more, runs_dir=tmp_path / "parts", on_epoch=stop_after(2))
    [checkpoint] = (tmp_path / "parts").iterdir()
    done = []
    resumed = pipeline.finetune(
        cut.path, **RECIPE, **more, runs_dir=tmp_path / "parts", on_plan=lambda plan: done.append(plan.epochs_done)
    )
    assert done == [2]
    assert bits(Path(resumed.path)) == bits(Path(whole.path))
    assert [epoch.train_loss for epoch in resumed.epochs] == [epoch.train_loss for epoch in whole.epochs]
    assert not checkpoint.exists()


def test_a_killed_process_is_gone_on_with(cut, tuned, tmp_path):
    """SIGKILL in the middle of an epoch: the next call goes on from the checkpoint before."""
    code = f"""
import os, signal, pipeline
def on_epoch(epoch):
    if epoch.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
pipeline.finetune({str(cut.path)!r}, **{RECIPE!r}, runs_dir={str(tmp_path / "parts")!r}, on_epoch=on_epoch)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = pipeline.finetune(cut.path, **RECIPE, runs_dir=tmp_path / "parts")
    assert bits(Path(resumed.path)) == bits(Path(tuned.path))


def test_a_damaged_checkpoint_is_told(cut, tmp_path):
    with pytest.raises(Killed):
        pipeline.finetune(cut.path, **RECIPE, runs_dir=tmp_path, on_epoch=stop_after(1))
    [checkpoint] = tmp_path.iterdir()
    data = bytearray(checkpoint.read_bytes())
    data[-100] ^= 4
    checkpoint.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        pipeline.finetune(cut.path, **RECIPE, runs_dir=tmp_path)
    with pytest.raises(Killed):  # another recipe has another checkpoint
        pipeline.finetune(cut.path, **{**RECIPE, "lr": 0.02}, runs_dir=tmp_path, on_epoch=stop_after(1))


def test_a_damaged_tail_is_told(tuned, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name, data in everything(Path(tuned.path)).items():
        (folder / name).write_bytes(data)
    data = bytearray((folder / "tail.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "tail.safetensors").write_bytes(data)
    with pytest.raises(DataError, match=r"tail\.safetensors is damaged"):
        read_head(folder)


def test_a_stream_trains_as_well_as_memory(cut, tuned, tmp_path):
    streamed = pipeline.finetune(cut.path, **RECIPE, stream="always", runs_dir=tmp_path)
    assert streamed.streamed
    assert not tuned.streamed
    assert np.isclose(streamed.epochs[0].train_loss, tuned.epochs[0].train_loss, atol=0.1)


def test_command_line(cut, tmp_path, cli):
    given = (cut.path, "--epochs", 1, "--batch-size", 8, "--runs-dir", tmp_path / "runs", "--device", "cpu")
    told = cli("finetune", *given)
    assert told.code == 0
    assert "all behind stage3" in told.err
    assert "BatchNorm statistics frozen" in told.err
    assert told.err.splitlines()[-1].startswith("next: pipeline evaluate 0001 --runs-dir")
    document = json.loads(cli("finetune", *given, "--json").out)
    assert document["run"] == "0002"
    assert "finetune 0.001/0.0001 x1" in cli("runs", "--runs-dir", tmp_path / "runs").out
    assert cli("finetune", *given, "-q").out.strip() == "0003"


def test_where_it_cannot_start_is_one_line(photos, cli):
    root = photos.parent / "cache"
    made = cli("extract", photos, *BACKBONE, "--layer", "stage3.1.branch2", "--pool", "none", "--cache-dir", root)
    assert "fine-tuning cannot start at stage3.1.branch2: what lies behind it needs other tensors too" in made.err
    assert "next: pipeline finetune" not in made.err
    refused = cli("finetune", "latest", "--cache-dir", root)
    assert refused.code == 2
    assert "It can at stage3.0 before it and at stage3.1 behind it." in refused.err
    cli("extract", photos, *BACKBONE, "--cache-dir", root)
    assert "nothing lies behind them that could be fine-tuned" in cli("finetune", "latest", "--cache-dir", root).err


def test_a_head_alone_refuses_maps_and_names_finetune(cut, tmp_path):
    with pytest.raises(UsageError, match=r"a head needs \(d,\)") as error:
        pipeline.train_head(cut.path, runs_dir=tmp_path)
    assert "pipeline finetune" in error.value.hint


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bn": "moving"}, "unknown bn 'moving'"),
        ({"hflip": 1.5}, "hflip must be"),
        ({"backbone_lr": -1.0}, "backbone-lr must be"),
        ({"lr": 0.0}, "lr must be"),
        ({"optimiser": "adam"}, "unknown setting 'optimiser'. Did you mean 'optimizer'"),
    ],
)
def test_settings_out_of_range(given, said):
    with pytest.raises(UsageError, match=said):
        FinetuneSettings.of(**given)


def test_norms_scaled_into_convolutions_are_the_same_function():
    cut = load_backbone("resnet18", weights="none", layer="layer3", pool="none", image_size=64)
    tail = make_tail(cut).module.requires_grad_(True)
    for norm in tail.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(norm.weight, 0.5, 2)
    quick, rows = scaled(tail), torch.randn(4, *cut.row_shape)
    assert {id(one) for one in quick.parameters()} == {id(one) for one in tail.parameters()}
    found = {}
    for name, module in (("plain", tail), ("quick", quick)):
        tail.zero_grad()
        features = module(rows)
        features.square().sum().backward()
        found[name] = [features.detach(), *(one.grad.clone() for one in tail.parameters())]
    for plain, other in zip(found["plain"], found["quick"], strict=True):
        assert torch.allclose(plain, other, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


def test_an_experiment_file_fine_tunes(photos, tmp_path, cli):
    config = tmp_path / "tune.toml"
    config.write_text(
        f'[extract]\nsource = "{photos}"\nbackbone = "shufflenet_v2_x0_5"\nweights = "none"\nimage_size = 32\n'
        'layer = "stage3"\npool = "none"\ntest_fraction = 0.2\nengine = "reference"\nworkers = 1\n'
        "[finetune]\nbatch_size = 8\n"
    )
    found = json.loads(cli("run", config, "--epochs", 1, "--json").out)
    assert len(found["finetune"]["epochs"]) == 1
    assert found["evaluate"]["run"] == found["finetune"]["run"]
    assert "train_head" not in found
    refused = cli("run", config, "--set", "head.lr=0.1")
    assert refused.code == 2
    assert "[finetune] trains layers and a head" in refused.err
