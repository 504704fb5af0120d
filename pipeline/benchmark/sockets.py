"""Room for the names of a DataLoader's sockets: where they do not fit, its workers cannot answer, and it waits."""

import os
import tempfile

from pipeline.errors import UsageError

SOCKET = "/pymp-xxxxxxxx/listener-xxxxxxxx"
"""How multiprocessing names them, below the folder for temporary files."""
MOST_BYTES = 103
"""Of such a name: what macOS allows. Linux allows 107."""


def check_room_for_sockets() -> None:
    """Refuse a folder for temporary files with too long a name.

    Raises:
        UsageError: naming it.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder + SOCKET)) > MOST_BYTES:
        raise UsageError(
            f"the folder for temporary files, {folder}, has too long a name for the sockets of a DataLoader's workers",
            "Set TMPDIR to a shorter one.",
        )
