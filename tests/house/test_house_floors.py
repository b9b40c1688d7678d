"""The floor plan in pyproject.toml is kept, is complete, and would be noticed if it were not."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from house_files import ROOT

PACKAGE = ROOT / "gatekeeper"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
FLOORS = next(contract for contract in CONTRACTS if contract["id"] == "floors")
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"


def lint_imports(where: Path) -> subprocess.CompletedProcess[str]:
    """import-linter as a process of its own: it changes ``sys.path`` and remembers what it has imported."""
    return subprocess.run([sys.executable, "-c", LINT], cwd=where, capture_output=True, text=True, timeout=60)


def listed_rooms() -> list[str]:
    """The rooms of all layers."""
    return [room.strip() for layer in FLOORS["layers"] for room in layer.replace(":", "|").split("|")]


def rooms() -> set[str]:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    return packages | modules


def test_imports_keep_to_the_floors():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_has_exactly_one_floor():
    assert FLOORS["exhaustive"] is True
    assert sorted(listed_rooms()) == sorted(rooms())


def empty_house(where: Path) -> Path:
    """Every room of the plan, empty, under the project's own contracts."""
    shutil.copy(ROOT / "pyproject.toml", where)
    package = where / "gatekeeper"
    for room in listed_rooms():
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
    (package / "__init__.py").touch()
    return package


def test_an_empty_house_keeps_the_contracts(tmp_path):
    empty_house(tmp_path)
    done = lint_imports(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("room", "line", "named"),
    [
        ("rules", "import gatekeeper.proxy", "gatekeeper.rules -> gatekeeper.proxy"),
        ("stores", "import gatekeeper.upstreams", "gatekeeper.stores -> gatekeeper.upstreams"),
        ("web", "import gatekeeper.stores", "gatekeeper.web -> gatekeeper.stores"),
        ("wire", "import time", "gatekeeper.wire -> time"),
        ("config", "import asyncio", "gatekeeper.config -> asyncio"),
        ("meters", "import random", "gatekeeper.meters -> random"),
        ("attic", "", "attic"),
    ],
    ids=["upwards", "sideways", "to an adapter", "a clock", "a loop", "chance", "an unlisted room"],
)
def test_a_broken_floor_is_noticed(tmp_path, room, line, named):
    package = empty_house(tmp_path)
    (package / room).mkdir(exist_ok=True)
    (package / room / "__init__.py").write_text(line + "\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert named in " ".join(done.stdout.split())
