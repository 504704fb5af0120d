"""timm's models, which need the extra `timm`; imported when a name asks for them."""

import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backbones.cut import input_width
from pipeline.backbones.family import BackboneInfo, Built
from pipeline.backbones.preprocess import BORDER, SHORTEST, SQUASH, Preprocess
from pipeline.backbones.weights import DEFAULT, RANDOM, fill, read_asked
from pipeline.errors import DataError, UsageError, first_line, nearest

if TYPE_CHECKING:
    from torch import nn

MODES = {"center": SHORTEST, "squash": SQUASH, "border": BORDER}
AUXILIARY = "aux_head"
"""VOLO's second classifier, which sees every token: without it the logits depend on the class token alone."""
INSTALL = "pip install 'feature-pipeline[timm]'"


class TimmFamily:
    """`timm/<model>` or `timm/<model>.<tag>`, a tag being the name of pretrained weights."""

    prefix = "timm/"

    def names(self) -> list[str]:
        """Return the names of all models without tags, in timm's order."""
        return list(_timm().list_models())

    def checked(self, name: str) -> str:
        """Return a model's name, with the tag if there is one.

        Raises:
            UsageError: if there is no such model or tag, with the nearest; or if timm is not installed.
        """
        model, dot, tag = name.partition(".")
        names = self.names()
        if model not in names:
            raise UsageError(
                f"unknown backbone {self.prefix + name!r}.{nearest(model, names)}",
                f"`pipeline backbones 'timm/{model[:3]}*'` lists those that begin alike.",
            )
        tags = weight_tags(model)
        if dot and tag not in tags:
            raise UsageError(
                f"timm has no weights {tag!r} for {model}.{nearest(tag, tags)}",
                f"Known: {', '.join(tags) or 'none'}. Without a tag: --backbone {self.prefix}{model}",
            )
        return name

    def describe(self, plain: str, *, build: bool) -> BackboneInfo:
        """Return what is known of a model; its sizes need building it."""
        tags = weight_tags(plain)
        features, parameters = _sizes(plain) if build else (0, 0)
        return BackboneInfo(
            self.prefix + plain,
            max(_config(plain)["input_size"][1:]),
            features,
            parameters,
            tuple(tags),
            tuple(tag for tag in tags if _on_disk(plain, tag)),
        )

    def preprocess(self, plain: str, weights: str) -> tuple[Preprocess, str]:
        """Return the evaluation transform of timm's data configuration for weights.

        Raises:
            UsageError: if the network is for images that are not square, or of another form.
        """
        full = _with_tag(plain, weights)
        config = _config(full)
        channels, height, width = config["input_size"]
        if channels != 3 or height != width or config["crop_mode"] not in MODES:
            raise UsageError(
                f"{self.prefix}{full} is for images of {channels} x {height} x {width}, {config['crop_mode']}",
                "Only square RGB images, of timm's crop modes center, squash and border, are cached.",
            )
        made = Preprocess(
            resize=int(height / config["crop_pct"]),
            crop=height,
            interpolation=config["interpolation"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            mode=MODES[config["crop_mode"]],
        )
        return made, self.prefix + full

    def build(self, plain: str, weights: str, image_size: int | None) -> Built:
        """Return the whole network; timm's own loader fetches and converts its own weights, into its own cache."""
        tags = weight_tags(plain)
        full = _with_tag(plain, weights)
        named = weights.upper() == DEFAULT or weights in tags
        if named and not tags:
            raise DataError(f"timm has no weights for {plain}", "Pass --weights FILE, or --weights none.")
        try:
            network = _create(full, image_size, pretrained=named)
        except (OSError, RuntimeError) as error:
            if not named:
                raise
            raise DataError(
                f"the weights of {self.prefix}{full} are not on this disk and could not be downloaded: "
                f"{first_line(error)}",
                "Connect once, or pass --weights FILE (a .safetensors or .pth state dict), or --weights none.",
            ) from error
        classifiers = _classifiers(network)
        if not named and weights != RANDOM:
            state = read_asked(weights, self.prefix + plain, [RANDOM, DEFAULT, *tags])
            fill(network, state, weights, (*classifiers, AUXILIARY))
        if hasattr(network, AUXILIARY):
            setattr(network, AUXILIARY, None)
        prefix_tokens = int(getattr(network, "num_prefix_tokens", 0))
        pool = "none" if classifiers else ""
        if _is_token_pool(network, classifiers):
            prefix_tokens, pool = 1, "cls"
        return Built(self.prefix + plain, network, classifiers, pool, prefix_tokens)


def weight_tags(plain: str) -> list[str]:
    """Return the tags of the weights that timm can download for a model, the default (or the name's own) first."""
    from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg

    found = {
        name.partition(".")[2]: cfg
        for name, cfg in get_arch_pretrained_cfgs(plain.partition(".")[0]).items()
        if cfg.has_weights
    }
    default = plain.partition(".")[2] or getattr(get_pretrained_cfg(plain), "tag", "")
    return sorted(found, key=lambda tag: tag != default)


def _timm() -> Any:  # noqa: ANN401 - the module
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UsageError("timm is not installed", INSTALL) from error
    return timm


def _with_tag(plain: str, weights: str) -> str:
    """Return a model's name with the tag that `--weights` names, if it names one."""
    return f"{plain.partition('.')[0]}.{weights}" if weights in weight_tags(plain) else plain


def _config(full: str) -> dict[str, Any]:
    """Return timm's data configuration: input_size, interpolation, mean, std, crop_pct, crop_mode."""
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(full)
    found: dict[str, Any] = resolve_data_config(pretrained_cfg=cfg.to_dict() if cfg is not None else {"tag": ""})
    return found


def _create(full: str, image_size: int | None, *, pretrained: bool) -> "nn.Module":
    """Build a model; one whose size is fixed when it is built is built for `image_size`."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(full)
    more: dict[str, Any] = {}
    if image_size is not None and cfg is not None and cfg.fixed_input_size and image_size != cfg.input_size[-1]:
        more["img_size"] = image_size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what timm will change: it is named by its version
            network: nn.Module = _timm().create_model(full, pretrained=pretrained, **more)
    except (TypeError, AssertionError, ValueError) as error:
        if not more:
            raise
        raise UsageError(
            f"timm/{full} cannot be built for images of {image_size} px: {first_line(error)}",
            f"It was made for {cfg.input_size[-1]} px: drop --image-size, or try a multiple of its patches.",
        ) from error
    return network


def _classifiers(network: "nn.Module") -> tuple[str, ...]:
    """Return the names of the last layers: timm says them; headless encoders have none, or an identity there."""
    from torch import nn

    cfg: Any = network.pretrained_cfg
    said = cfg.get("classifier") or ()
    names = (said,) if isinstance(said, str) else tuple(said)
    there = dict(network.named_modules())
    return tuple(name for name in names if name != AUXILIARY and isinstance(there.get(name), nn.Linear | nn.Conv2d))


def _is_token_pool(network: "nn.Module", classifiers: tuple[str, ...]) -> bool:
    """Tell whether the classifier is the projection inside CLIP's attention pool, which is given all tokens."""
    if len(classifiers) != 1:
        return False
    around = network.get_submodule(classifiers[0].rpartition(".")[0])
    return getattr(around, "pool_type", None) == "token"


@cache
def _sizes(plain: str) -> tuple[int, int]:
    """Return the default cut's width and the parameters, from the network built without memory."""
    import torch

    with torch.device("meta"):
        network = _create(plain, None, pretrained=False)
    parameters = sum(value.numel() for value in network.parameters())
    names = _classifiers(network)
    if len(names) == 1:
        return input_width(network.get_submodule(names[0])), parameters
    return int(getattr(network, "num_features", 0)) if not names else 0, parameters


def _on_disk(plain: str, tag: str) -> bool:
    """Tell whether timm would find weights in one of its caches."""
    from timm.models import get_pretrained_cfg
    from torch.hub import get_dir

    cfg = get_pretrained_cfg(f"{plain.partition('.')[0]}.{tag}")
    if cfg.url and (Path(get_dir()) / "checkpoints" / cfg.url.rsplit("/", 1)[-1]).is_file():
        return True
    if not cfg.hf_hub_id:
        return False
    from huggingface_hub import try_to_load_from_cache

    files = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(cfg.hf_hub_id, file), str) for file in files)
