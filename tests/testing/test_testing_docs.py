"""The guide's chapter on testing says what is: its test file runs, in a repository that is not ours."""

import re
import subprocess
import sys
from pathlib import Path

from gatekeeper import testing

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "expressions.md").read_text("utf-8")
CHAPTER = GUIDE.partition("## Testing an expression")[2].partition("\n## ")[0]
[TEST_FILE] = re.findall(r"^```python\n(.*?)^```$", CHAPTER, re.DOTALL | re.MULTILINE)


def test_the_test_file_of_the_guide_passes_where_a_stranger_puts_it(tmp_path):
    (tmp_path / "test_our_meters.py").write_text(TEST_FILE, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_our_meters.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_the_guide_lists_every_strategy():
    strategies = [name for name in testing.__all__ if name.endswith(("_streams", "_answers"))]
    assert len(strategies) >= 18
    assert [name for name in strategies if f"`{name}(" not in CHAPTER] == []
    assert [name for name in testing.VENDORS if name not in CHAPTER] == []
    for check in ("assert_meters", "assert_chunking_law", "assert_never_defaults"):
        assert check in TEST_FILE
