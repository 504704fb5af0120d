"""One HTML file from a template, with its style, script and data inside and nothing else allowed.

The policy in the file lets a browser load nothing at all but this very style and script, named by their hashes.
"""

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

from markupsafe import Markup

from pipeline.reporting.names import visible

PAGE = "page.html.j2"


def render(page: dict[str, Any], data: dict[str, Any]) -> str:
    """Return the page.

    Args:
        page: what the template shows.
        data: what its script reads; plain JSON fields.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined

    environment = Environment(
        loader=DictLoader({PAGE: _part(PAGE)}),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.2f}%"
    environment.filters["thousands"] = lambda number: f"{number:,}"
    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(PAGE).render(
        page=page, policy=policy, style=Markup(style), script=Markup(script), data=Markup(embedded(data))
    )


def embedded(data: dict[str, Any]) -> str:
    """Return JSON that cannot end the script element it stands in, whatever names are in it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _visible(value: Any) -> Any:  # noqa: ANN401 - whatever an expression of the template is
    """Spell out what a name hides; our own markup is left as it is."""
    return visible(value) if type(value) is str else value


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _part(name: str) -> str:
    return resources.files("pipeline.reporting").joinpath("page").joinpath(name).read_text("utf-8")
