"""The model card: what a person should know before using a model."""

from importlib import resources
from typing import Any

TEMPLATE = "card.md.j2"
SHOWN_CLASSES = 100


def model_card(described: dict[str, Any], file: str) -> str:
    """Return the card as Markdown.

    Args:
        described: `description.describe`'s fields, and `check`.
        file: the artifact's name.
    """
    from jinja2 import Environment, StrictUndefined

    template = resources.files("pipeline.artifacts").joinpath(TEMPLATE).read_text("utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    kind = file.rpartition(".")[2]
    return (
        environment.from_string(template).render(d=described, file=file, kind=kind, shown=SHOWN_CLASSES).rstrip() + "\n"
    )
