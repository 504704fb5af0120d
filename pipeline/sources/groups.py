"""Groups by folder: `folder:N` names a level of a sample's path, counted from the source's root."""

import re
from collections.abc import Sequence

from pipeline.errors import DataError, UsageError
from pipeline.textcolumn import ColumnBuilder, TextColumn

FOLDER = re.compile(r"folder:(-?[1-9][0-9]?)")


def folder_level(group_by: str | None) -> int | None:
    """Return N of `folder:N`, None for anything else, which is a column's name.

    Raises:
        UsageError: if it begins so and has no such number.
    """
    if group_by is None or not group_by.startswith("folder:"):
        return None
    match = FOLDER.fullmatch(group_by)
    if match is None:
        raise UsageError(
            f"--group-by {group_by} is no level of folders",
            "folder:1 is the first folder of a path, folder:2 the one in it, folder:-1 the one the file lies in.",
        )
    return int(match[1])


def folder_groups(ids: Sequence[str], group_by: str | None) -> TextColumn | None:
    """Return the name of the folder at the level that `folder:N` gives, one a sample; None without `group_by`.

    The name alone counts: tulip/p7/1.jpg and daisy/p7/2.jpg are one group by folder:2.

    Raises:
        DataError: if a sample does not lie so deep.
        UsageError: if `group_by` is not of that form.
    """
    if group_by is None:
        return None
    level = folder_level(group_by)
    if level is None:
        raise UsageError(f"--group-by {group_by}: there are no columns here", "Name a level: --group-by folder:2.")
    groups = ColumnBuilder()
    for sample_id in ids:
        folders = sample_id.split("/")[:-1]
        if len(folders) < abs(level):
            raise DataError(
                f"--group-by {group_by}: {sample_id} lies in {len(folders)} folders",
                "folder:1 is the first folder of a path from the source's root, folder:-1 the one the file lies in.",
            )
        groups.append(folders[level - 1 if level > 0 else level])
    return TextColumn.built(groups)
