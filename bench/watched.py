"""``gatekeeper`` itself, unchanged, that can be asked from outside how many tasks run in it.

``python -m bench.watched FILE serve ...``: after SIGUSR1 the file has {"tasks": {what they run: how many}}. The rule:
the product is not touched. A handler of Python's own runs between two steps of the loop, so what it sees is whole.
"""

import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from gatekeeper.cli.main import main


def _tell(path: Path) -> None:
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        # Before the loop or after it.
        tasks = set()
    found = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps({"tasks": found}))
    # A reader finds all of it or nothing.
    unfinished.replace(path)


if __name__ == "__main__":
    told = Path(sys.argv[1])

    def _handle(_: int, __: FrameType | None) -> None:
        _tell(told)

    signal.signal(signal.SIGUSR1, _handle)
    sys.exit(main(sys.argv[2:]))
