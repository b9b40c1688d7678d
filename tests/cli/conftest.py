"""The command line as a person and as a script use it: in an empty folder, with nothing of our own environment."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatekeeper.cli.main import main

READ_VARIABLES = ("PORT", "DATABASE_URL", "ADMIN_API_KEY", "GATEKEEPER_HOST", "OPENAI_API_KEY")


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder in which each test stands."""
    for name in READ_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """``cli("check", "--json")`` in this process."""

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as left:
            code = int(left.code or 0)
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


@pytest.fixture
def gateway(cli: Callable[..., Done], folder: Path) -> Path:
    """The folder after ``gatekeeper init``."""
    assert cli("init").code == 0
    return folder


@pytest.fixture
def process(folder: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """``with process("serve", "--port", "0") as running``: a process of its own, ended with the block."""

    @contextmanager
    def start(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
        kept = {name: value for name, value in os.environ.items() if name not in READ_VARIABLES}
        running = subprocess.Popen(
            [sys.executable, "-u", "-m", "gatekeeper.cli.main", *arguments],
            cwd=folder,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with running:
            try:
                yield running
            finally:
                if running.poll() is None:
                    running.kill()

    return start  # type: ignore[return-value]
