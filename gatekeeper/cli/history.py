"""What a person typed at the prompt, kept for the next time: in the user's own state folder, for his eyes only."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# More than anybody searches through.
LINES_MAX = 1_000


def history_file() -> Path:
    """``$XDG_STATE_HOME/gatekeeper/meter_history`` (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return folder / "gatekeeper" / "meter_history"


@contextmanager
def kept_history() -> Iterator[None]:
    """Lines of before are there, and those of now are kept. A folder that cannot be written is no reason to complain;
    nor is a platform without readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    readline.set_history_length(LINES_MAX)
    with contextlib.suppress(OSError, RuntimeError):
        readline.read_history_file(history_file())
    try:
        yield
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            place = history_file()
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            place.touch(mode=0o600)
            readline.write_history_file(place)
