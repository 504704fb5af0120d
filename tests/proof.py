"""The proof of every cut: the original last layers, applied to features read back from a real `extract`, give the
logits of a separately built original model on images that its own library's transform made.

    python tests/proof.py [NAME…]     a line a model, all torchvision models and one of each timm module by default

Random weights from seed 0; the classifiers of the original are drawn anew, because some begin with zeros, and
scales that begin with next to nothing are made 1, because else all images would give the same features. Nothing of
the original runs between features and logits but its last layers: with several, or something behind them, the
original is run on a black image with the classifiers' inputs replaced by the features, so that what depends on
anything else shows.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from conftest import make_image
from PIL import Image
from torch import nn
from torchvision import models

import pipeline

BAR = 1e-5
"""Largest difference of logits that holds, relative to the largest logit."""

TIMM = """
beit_base_patch16_224 cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32 cpubone_nano crossvit_tiny_240
cs3darknet_focus_s csatv2 cspnext_tiny davit_tiny deepseek_vit_412m deit_tiny_distilled_patch16_224
deit_tiny_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
efficientvim_m1 efficientvim_m1_dist efficientvit_b0 efficientvit_m0 ese_vovnet19b_slim_dw eva02_tiny_patch14_336
fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050 gmlp_ti16_224 halonet_h1
hardcorenas_b hgnetv2_b0 hiera_tiny_224 hieradet_small hrnet_w18_small iformer_m_distilled iformer_t
inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small legacy_seresnet18 legacy_xception
levit_128s levit_256d lowformer_b0 mobilenetv3_small_050 mobilenetv5_base mobilevit_xxs mvitv2_tiny
naflexvit_base_patch16_parfac_gap nasnetalarge nest_tiny nextvit_small pit_ti_224 pit_ti_distilled_224 pnasnet5large
poolformerv2_s12 pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050 repvit_m1 res2next50 resnest14d
resnetv2_18 rexnet_100 samvit_base_patch16_224 selecsls42 sequencer2d_s shvit_s1 skresnet18 starnet_s050
swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 test_byobnet test_coatnet
test_convnext test_efficientnet test_mambaout test_nfnet test_resnet test_vit test_vit_relpos tiny_vit_5m_224
tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny vit_tiny_r_s16_p8_224 vitamin_small_224
volo_d1_224 xception41p xcit_nano_12_p8_224
""".split()  # noqa: SIM905 - a list would be a line a name
"""One model of each timm module that has classifiers, the smallest, and those whose heads are of another kind."""


LIVELY = 1e-4
"""Features of different images must differ by this, or the proof would hold for a constant."""


def torchvision_names() -> list[str]:
    return sorted(models.list_models(module=models))


def photos(root: Path) -> list[Path]:
    """Two images of each of two classes, larger than most networks see."""
    paths = [root / name / f"{number}.png" for name in ("apple", "beet") for number in range(2)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image(seed, (300, 260)).save(path)
    return paths


def original(name: str) -> tuple[nn.Module, list[str], object]:
    """The whole network, built without our code: with its classifiers' names and its library's own transform."""
    torch.manual_seed(0)
    if name.startswith("timm/"):
        import timm

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = timm.create_model(name.removeprefix("timm/"))
        said = network.pretrained_cfg.get("classifier") or ()
        there = dict(network.named_modules())
        heads = [there.get(key) for key in ((said,) if isinstance(said, str) else said)]
        last = [module for module in heads if isinstance(module, nn.Linear | nn.Conv2d)]
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    else:
        transform = models.get_model_weights(name).DEFAULT.transforms()
        more = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        if name.startswith("vit_"):
            more["image_size"] = transform.crop_size[0]
        network = models.get_model(name, **more)
        last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1:]
    names = {id(module): key for key, module in network.named_modules()}
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in last:
            module.weight.normal_(generator=draws)
            if module.bias is not None:
                module.bias.zero_()
    return network.eval(), [names[id(module)] for module in last], transform


def enliven(network: nn.Module) -> bool:
    """Make constant scales that begin near zero 1. Return whether there are any."""
    found = False
    with torch.no_grad():
        for value in network.parameters():
            if value.numel() > 1 and 0 < float(value.abs().max()) <= 0.1 and bool((value == value.flatten()[0]).all()):
                value.fill_(1)
                found = True
    return found


def extracted(name: str, root: Path, **options) -> torch.Tensor:
    """Features of the photos under `root`, read back from the cache."""
    made = pipeline.extract(
        str(root / "photos"),
        backbone=name,
        batch_size=4,
        workers=1,
        test_fraction=0,
        cache_dir=root / "cache",
        **options,
    )
    return pipeline.open_cache(made.cache, cache_dir=root / "cache").x


def prove(name: str, root: Path) -> tuple[float, int]:
    """Return the largest difference of logits relative to the largest logit, and d."""
    paths = photos(root / "photos")
    network, last, transform = original(name)
    images = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    weights = "none"

    def extract(**layer) -> torch.Tensor:
        return extracted(name, root, weights=weights, **layer)

    if enliven(network):
        weights = keep(network, root / "lively.pth")
    features = extract()
    if spread(features) < LIVELY:
        calibrate(network, images)
        weights = keep(network, root / "calibrated.pth")
        features = extract()
    assert spread(features) >= LIVELY, f"{name}: all images give the same features"
    seen: dict[str, list[torch.Tensor]] = {key: [] for key in last}
    handles = [
        network.get_submodule(key).register_forward_pre_hook(lambda _, given, key=key: seen[key].append(given[0]))
        for key in last
    ]
    with torch.inference_mode():
        logits = network(images)
        for handle in handles:
            handle.remove()
        again = head(name, network, last, seen, features, images, extract)
    if not last:
        logits, again = logits.flatten(1), again.flatten(1)
    assert logits.shape == again.shape, f"{name}: {tuple(again.shape)}"
    return float((again - logits).abs().max() / logits.abs().max()), features.shape[1]


def spread(features: torch.Tensor) -> float:
    """How far features of different images are apart, relative to the largest."""
    return float((features - features[0]).abs().max() / features.abs().max())


def keep(network: nn.Module, path: Path) -> str:
    torch.save(network.state_dict(), path)
    return str(path)


def calibrate(network: nn.Module, images: torch.Tensor) -> None:
    """Give every BatchNorm the statistics of the images, without which random deep networks see no difference."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
            module.train()
    with torch.no_grad():
        network(images)
    network.eval()


def head(name, network, last, seen, features, images, extract) -> torch.Tensor:
    """The logits of the original's last layers on cached features."""
    if not last:  # an encoder without a head: what it returns is kept, whole or averaged
        return extract(pool="none")
    if name.startswith("squeezenet"):
        unpooled = extract(layer="features", pool="none")
        assert torch.allclose(unpooled.mean((2, 3)), features, rtol=1e-5, atol=1e-7)
        return network.classifier(unpooled).flatten(1)
    if name.startswith("timm/volo"):
        tokens = extract(layer="norm", pool="none")
        assert torch.equal(tokens[:, 0], features)
        return network.head(tokens[:, 0]) + 0.5 * network.aux_head(tokens[:, 1:]).amax(1)
    if len(last) == 1:
        module = network.get_submodule(last[0])
        if isinstance(module, nn.Conv2d):
            return module(features[..., None, None]).flatten(1)
        return module(features)
    # Several: each gets its columns, those that were given one tensor the same ones.
    columns: dict[int, torch.Tensor] = {}
    start = 0
    for key in last:
        given = seen[key][0]
        if id(given) not in columns:
            columns[id(given)] = features[:, start : start + given.shape[1]]
            start += given.shape[1]
    assert start == features.shape[1]
    for key in last:
        mine = columns[id(seen[key][0])]
        network.get_submodule(key).register_forward_pre_hook(lambda _module, _given, mine=mine: (mine,))
    return network(torch.zeros_like(images))


def main(names: list[str]) -> int:
    worst = 0.0
    failed = []
    for name in names or [*torchvision_names(), *(f"timm/{model}" for model in TIMM)]:
        started = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory() as folder:
                difference, width = prove(name, Path(folder))
        except (pipeline.PipelineError, AssertionError, RuntimeError, TypeError, AttributeError) as error:
            failed.append(name)
            print(f"{name:<45} FAILED  {type(error).__name__}: {error}", flush=True)
            continue
        if not np.isfinite(difference) or difference > BAR:
            failed.append(name)
        worst = max(worst, difference)
        verdict = "ok" if difference <= BAR else "TOO LARGE"
        print(
            f"{name:<45} {width:>6} features  {difference:.1e}  {verdict}  {time.perf_counter() - started:.1f} s",
            flush=True,
        )
    print(f"largest {worst:.1e}, bar {BAR:.0e}, failed {len(failed)}: {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
