"""How a source is read, where a user says more than its name: columns, groups, no labels."""

from dataclasses import dataclass, fields
from typing import Any, Self

from pipeline.errors import DataError, UsageError


@dataclass(frozen=True)
class Reading:
    """What a user says about how samples are read; None leaves it to the source."""

    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    image_column: str | None = None
    group_by: str | None = None
    """A column, or `folder:N`: see `groups`."""
    unlabelled: bool = False
    """Whether labels are neither looked for nor needed."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields that a user has set."""
        return {item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name)}

    def described(self) -> dict[str, Any]:
        """Return what a manifest says of it beside the source's kind and location."""
        said = self.to_json()
        return {"reading": said} if said else {}

    @classmethod
    def from_json(cls, value: Any) -> Self:  # noqa: ANN401 - from a manifest, which may come from anyone
        """Build from `to_json`'s fields.

        Raises:
            DataError: if there are other fields, or values of another type.
        """
        kinds = {item.name: bool if item.name == "unlabelled" else str for item in fields(cls)}
        if not isinstance(value, dict) or not all(
            name in kinds and isinstance(found, kinds[name]) for name, found in value.items()
        ):
            raise DataError(f"the entry says that its source is read as {str(value)[:80]}, which this version cannot")
        return cls(**value)

    def only(self, names: frozenset[str]) -> "Reading":
        """Return what is said by the fields `names`."""
        return Reading(**{name: value for name, value in self.to_json().items() if name in names})

    def check(self, names: frozenset[str], kind: str) -> None:
        """Refuse what a kind of source has no use for.

        Raises:
            UsageError: naming the option.
        """
        for name in self.to_json():
            if name not in names:
                takes = ", ".join(map(flag, sorted(names))) or "none of these options"
                raise UsageError(f"{flag(name)} means nothing for {kind}", f"It takes {takes}.")


PLAIN = Reading()
"""Nothing said."""


def flag(name: str) -> str:
    """Return a field's name as an option of the command line."""
    return "--" + name.replace("_", "-")
