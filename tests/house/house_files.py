"""Which files the house consists of, and how a check names its offenders."""

import ast
import functools
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = frozenset({ROOT / "gatekeeper" / "meters" / "_tables.py"})
# What a build or a tool leaves behind, for a tree that comes without git.
_LEFT_BEHIND = {
    ".git",
    ".venv",
    "venv",
    "build",
    "dist",
    "__pycache__",
    "node_modules",
    ".hypothesis",
    "gatekeeper-demo",
}


@functools.cache
def project_files() -> tuple[Path, ...]:
    """Every file that is or would be committed, in order."""
    listed = _from_git() or _from_walk()
    return tuple(sorted(path for path in listed if path.is_file()))


def python_files(*rooms: str) -> list[Path]:
    """The written (not generated) Python files below some directories of the project."""
    tops = [ROOT / room for room in rooms]
    return [
        path
        for path in project_files()
        if path.suffix == ".py" and path not in GENERATED and any(path.is_relative_to(top) for top in tops)
    ]


@functools.cache
def tree(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, node: ast.AST | None = None) -> str:
    """``room/file.py:12`` as an editor opens it."""
    shown = path.relative_to(ROOT).as_posix()
    return f"{shown}:{getattr(node, 'lineno', 1)}"


def complain(offenders: Iterable[str], rule: str) -> str:
    """The message of a failed check: the rule, then every offender at once."""
    return "\n".join([rule, *(f"  {offender}" for offender in offenders)])


def _from_git() -> list[Path]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if not (ROOT / ".git").exists():
        return []
    try:
        done = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        # No git, or a clone that belongs to somebody else.
        return []
    return [ROOT / os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _from_walk() -> Iterator[Path]:
    for directory, below, names in os.walk(ROOT):
        left_behind = {name for name in below if name in _LEFT_BEHIND or name.endswith((".egg-info", "_cache"))}
        environments = {name for name in below if Path(directory, name, "pyvenv.cfg").exists()}
        below[:] = [name for name in below if name not in left_behind | environments]
        yield from (Path(directory, name) for name in names)
