"""The process of a local team: takes numbers of shards from a pipe, makes them, answers.

Started as `python -c … SETUP`, where SETUP is JSON: what `Member` is given, and two pipes. It ends when the driver
closes its pipe, or is gone; on SIGTERM it gives up the shard it is at.
"""

import contextlib
import json
import signal
import sys
from multiprocessing.connection import Connection

from pipeline.errors import PipelineError, error_to_json
from pipeline.launch.member import Member
from pipeline.launch.share import Share


def _give_up(*_: object) -> None:
    """End once: a job manager's SIGTERM comes beside the driver's, and must not interrupt the end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    """Serve the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    signal.signal(signal.SIGTERM, _give_up)
    setup = json.loads(sys.argv[1])
    orders, answers = Connection(setup["orders"], writable=False), Connection(setup["answers"], readable=False)

    def answer(value: object) -> None:
        answers.send_bytes(json.dumps(value).encode())

    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt), contextlib.ExitStack() as stack:
        try:
            member = stack.enter_context(
                contextlib.closing(Member(setup["request"], setup["plans"], Share(**setup["share"])))
            )
            answer({"ready": member.token})
            while True:
                answer({"made": member.make(*json.loads(orders.recv_bytes()))})
        except PipelineError as error:
            answer({"error": error_to_json(error)})
