"""The user's own networks: `package.module:function`.

The function takes nothing and returns an `nn.Module` that maps images (b, 3, h, w), normalised float32, to
features, or a pair of that and a dict with the fields of Preprocess: resize, crop, interpolation, mean, std, mode.
"""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from pipeline.backbones.family import BackboneInfo, Built
from pipeline.backbones.preprocess import Preprocess
from pipeline.backbones.weights import DEFAULT, RANDOM, fill, read_asked
from pipeline.digest import sha256_file
from pipeline.errors import DataError, UsageError, nearest

IMAGENET = Preprocess(256, 224, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What images go through where the function says nothing else."""
SOURCE = "@sha256:"


class CustomFamily:
    """`package.module:function`, importable from the Python path or the working directory."""

    prefix = ""

    def names(self) -> list[str]:
        """Return none: what could be imported is not searched."""
        return []

    def checked(self, name: str) -> str:
        """Return `package.module:function`, after importing it.

        A name as in a feature space carries the SHA-256 of the defining file, which must not have changed.

        Raises:
            UsageError: if there is no such module or function.
            DataError: if the file is not that of the feature space.
        """
        plain, _, expected = name.partition(SOURCE)
        found = _source_digest(_function(plain))
        if expected and found != expected:
            raise DataError(
                f"the source file of {plain} has changed since the features were made",
                "Put the old file back, or extract again.",
            )
        return plain

    def describe(self, plain: str, *, build: bool) -> BackboneInfo:
        """Return what is known of it: its name."""
        return BackboneInfo(plain, 0, 0, 0, (), ())

    def preprocess(self, plain: str, weights: str) -> None:
        """Return None: what the function returns says it."""

    def build(self, plain: str, weights: str, image_size: int | None) -> Built:
        """Return what the function returns; with DEFAULT and `none` the weights are those it comes with."""
        from torch import nn

        function = _function(plain)
        try:
            made = function()
        except Exception as error:
            raise DataError(f"{plain} failed: {type(error).__name__}: {error}", "--traceback shows where.") from error
        network, fields = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
        if not isinstance(network, nn.Module) or not isinstance(fields, dict):
            raise DataError(
                f"{plain} returned {type(made).__name__}", "It must return an nn.Module, or (nn.Module, dict)."
            )
        if weights != RANDOM and weights.upper() != DEFAULT:
            fill(network, read_asked(weights, plain, [DEFAULT, RANDOM]), weights, ())
        return Built(
            f"{plain}{SOURCE}{_source_digest(function)}",
            network,
            (),
            pool="",
            prefix_tokens=int(getattr(network, "num_prefix_tokens", 0)),
            preprocess=_preprocess(plain, fields),
        )


def _function(plain: str) -> Callable[[], Any]:
    module_name, _, name = plain.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it; a console script does not
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"no module {error.name!r} for backbone {plain!r}",
            "It is looked for in the working directory and on the Python path.",
        ) from error
    except Exception as error:
        raise DataError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}", "--traceback shows where."
        ) from error
    finally:
        sys.path.pop(0)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UsageError(
            f"module {module_name} has no function {name!r}.{nearest(name, known)}",
            f"Functions there: {', '.join(known[:10]) or 'none'}",
        )
    return function  # type: ignore[no-any-return]


_SEEN: "WeakKeyDictionary[ModuleType, str]" = WeakKeyDictionary()
"""Digests of source files when their modules were first used: code in memory is that of those bytes."""


def _source_digest(function: Callable[[], Any]) -> str:
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        path = None
    if path is None or not Path(path).is_file():
        raise UsageError(
            f"{function!r} has no source file, so what it computes has no name", "Define it in a .py file."
        )
    digest = sha256_file(Path(path))
    module = sys.modules.get(inspect.unwrap(function).__module__)
    if module is not None and _SEEN.setdefault(module, digest) != digest:
        raise DataError(f"{path} has changed since it was imported", "Start Python anew.")
    return digest


def _preprocess(plain: str, fields: dict[str, Any]) -> Preprocess:
    known = {**IMAGENET.to_json(), "mode": IMAGENET.mode}
    for fixed in ("colour", "decoder"):
        del known[fixed]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise DataError(
            f"{plain} returned a preprocess with {unknown[0]!r}.{nearest(unknown[0], known)}",
            f"Known: {', '.join(known)}",
        )
    try:
        merged = {**known, **fields}
        return Preprocess(**{**merged, "mean": tuple(merged["mean"]), "std": tuple(merged["std"])})
    except (TypeError, ValueError) as error:
        raise DataError(f"{plain} returned a preprocess that cannot be: {error}") from error
