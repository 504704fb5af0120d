"""All backbones by name, whatever their family."""

import fnmatch
from importlib.util import find_spec

from pipeline.backbones.custom import CustomFamily
from pipeline.backbones.family import BackboneInfo, Family
from pipeline.backbones.timm_family import TimmFamily
from pipeline.backbones.vision import TorchvisionFamily
from pipeline.backbones.weights import RANDOM
from pipeline.errors import UsageError, nearest

TORCHVISION, TIMM, CUSTOM = TorchvisionFamily(), TimmFamily(), CustomFamily()
SIZED = 40
"""Most networks of a listing that are built, without memory, to tell their sizes."""


def find_family(name: str) -> tuple[Family, str]:
    """Return the family of a backbone and its plain name: `timm/…`, `package.module:function`, else torchvision's.

    Raises:
        UsageError: if there is none of that name, with the nearest of all installed families.
    """
    if name.startswith(TIMM.prefix):
        return TIMM, TIMM.checked(name.removeprefix(TIMM.prefix))
    if ":" in name:
        return CUSTOM, CUSTOM.checked(name)
    plain = name.removeprefix(TORCHVISION.prefix)
    if plain.partition("+")[0] not in TORCHVISION.names() and not name.startswith(TORCHVISION.prefix):
        known = [*TORCHVISION.names(), *(TIMM.prefix + other for other in _timm_names())]
        same = f" Did you mean {TIMM.prefix + name!r}?" if TIMM.prefix + name in known else nearest(name, known)
        raise UsageError(f"unknown backbone {name!r}.{same}", "`pipeline backbones` lists all that are installed.")
    return TORCHVISION, TORCHVISION.checked(plain)


def find_backbones(pattern: str) -> list[BackboneInfo]:
    """Return what is known of the backbones whose name matches a shell pattern or holds it as a part.

    timm says sizes of none of its networks without building them: with more than SIZED to show they are left out.

    Raises:
        UsageError: if none does.
    """
    names = [*(TORCHVISION.prefix + name for name in TORCHVISION.names()), *(TIMM.prefix + n for n in _timm_names())]
    plain = [name.partition("/")[2] for name in names]
    found = [
        whole
        for whole, short in zip(names, plain, strict=True)
        if pattern in whole or fnmatch.fnmatch(short, pattern) or fnmatch.fnmatch(whole, pattern)
    ]
    if not found:
        near = nearest(pattern, [*plain, *names])
        raise UsageError(f"no backbone matches {pattern!r}.{near}", "`pipeline backbones` lists all.")
    families = {family.prefix: family for family in (TORCHVISION, TIMM)}
    build = len(found) <= SIZED
    return [families[name.partition("/")[0] + "/"].describe(name.partition("/")[2], build=build) for name in found]


def list_layers(name: str) -> tuple[str, list[tuple[str, str]]]:
    """Return a network's default cut, and the name and class of each of its modules, in order.

    Raises:
        UsageError: if there is no such network.
    """
    family, plain = find_family(name)
    built = family.build(plain, RANDOM, None)
    return built.layer, [(layer, type(module).__name__) for layer, module in built.network.named_modules() if layer]


def _timm_names() -> list[str]:
    return TIMM.names() if find_spec("timm") is not None else []
