"""``gatekeeper meter`` without an expression, as a person meets it: typed into a real terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("readline")
CHAT = str(Path(__file__).resolve().parents[1] / "streams" / "openai_chat_usage.sse")
TAB, UP, END = "\t", "\x1b[A", "\x04"
# A command starts in a second; a machine under load is given time.
_PATIENCE_S = 60.0


class Terminal:
    """What a person types, and what the screen has shown so far."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def wait_for(self, pattern: str) -> str:
        """Reads until the screen shows this after what was waited for before."""
        until = time.monotonic() + _PATIENCE_S
        while (found := re.search(pattern, self.shown)) is None:
            ready, _, _ = select.select([self._file], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{pattern!r} did not come; the screen: {self.shown!r}"
            self.shown += os.read(self._file, 4096).decode()
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before


@contextmanager
def typing(*arguments: str, state: Path) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gatekeeper.cli.main", "meter", *arguments]
    # A dumb terminal has no line editing.
    environment = {**os.environ, "TERM": "vt100", "INPUTRC": os.devnull, "XDG_STATE_HOME": str(state)}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as person:
        os.close(theirs)
        try:
            yield Terminal(ours), person
        finally:
            person.kill()
            os.close(ours)


def test_the_prompt_completes_names_and_remembers_what_was_typed(tmp_path):
    with typing("--stream", CHAT, state=tmp_path) as (terminal, command):
        terminal.wait_for("TAB completes names; Ctrl-D ends.\r\n")
        terminal.wait_for("meter> ")
        terminal.type(f"usag{TAB}().total\r")
        assert "usage().total" in terminal.wait_for(r"\r\n15\r\n")
        terminal.wait_for("meter> ")
        terminal.type("last(evnts, .json.usage)\r")
        terminal.wait_for("did you mean 'events'")
        terminal.wait_for("meter> ")
        terminal.type(f"count(eve{TAB})\r")
        terminal.wait_for(r"\r\n6\r\n")
        terminal.wait_for("meter> ")
        terminal.type(UP * 3 + " * 2\r")
        terminal.wait_for(r"\r\n30\r\n")  # twice the 15 of the expression three lines up
        terminal.wait_for("meter> ")
        terminal.type(END)
        assert command.wait(_PATIENCE_S) == 0
    kept = tmp_path / "gatekeeper" / "meter_history"
    assert kept.stat().st_mode & 0o777 == 0o600
    with typing("--stream", CHAT, state=tmp_path) as (terminal, command):
        terminal.wait_for("meter> ")
        terminal.type(UP + "\r")
        terminal.wait_for(r"\r\n30\r\n")  # the last line of the day before
        terminal.wait_for("meter> ")
        terminal.type(END)
        assert command.wait(_PATIENCE_S) == 0


def test_a_folder_that_cannot_be_written_is_no_reason_to_complain(tmp_path):
    (tmp_path / "file").write_text("")
    with typing("--stream", CHAT, state=tmp_path / "file") as (terminal, command):
        terminal.wait_for("meter> ")
        terminal.type("usage().total\r")
        terminal.wait_for(r"\r\n15\r\n")
        terminal.wait_for("meter> ")
        terminal.type(END)
        assert command.wait(_PATIENCE_S) == 0
