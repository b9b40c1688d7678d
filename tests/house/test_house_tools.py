"""The tools that judge every line: formatter, linter, types. Each runs once, as a person would run it."""

import subprocess
import sys

import pytest
from house_files import ROOT


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "format", "--check", "."], id="formatted"),
        pytest.param(["ruff", "check", "--no-fix", "."], id="linted"),
        pytest.param(["mypy"], id="typed"),
    ],
)
def test_the_whole_tree_is_clean(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, f"{' '.join(command)} found:\n{done.stdout}{done.stderr}"
