"""What the operating system allows is looked at in processes of their own: limits cannot be raised again."""

import json
import subprocess
import sys

import pytest

from gatekeeper.cli.process import memory_limit

LOOK = """
import json, resource
resource.setrlimit(resource.{which}, ({soft}, {hard}))
from gatekeeper.cli.process import raised_limits
found = raised_limits()
print(json.dumps([found, resource.getrlimit(resource.RLIMIT_NOFILE)[0]]))
"""


def looked(which: str, soft: int, hard: int) -> tuple[list[str], int]:
    script = LOOK.format(which=which, soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found, descriptors = json.loads(done.stdout)
    return found, descriptors


def test_file_descriptors_are_raised_to_what_is_allowed():
    found, descriptors = looked("RLIMIT_NOFILE", 256, 8_192)
    assert descriptors == 8_192
    assert not any("descriptors" in sentence for sentence in found)


def test_too_few_file_descriptors_are_said():
    found, descriptors = looked("RLIMIT_NOFILE", 256, 512)
    assert descriptors == 512
    assert [sentence for sentence in found if "descriptors" in sentence] == [
        "only 512 file descriptors are allowed: about 256 calls at once; raise the limit (ulimit -n, LimitNOFILE=)"
    ]


@pytest.mark.parametrize(("written", "bound"), [("268435456\n", 268_435_456), ("max\n", None)])
def test_the_memory_of_a_container_is_known(tmp_path, written, bound):
    limit = tmp_path / "memory.max"
    limit.write_text(written)
    assert memory_limit(limit) == bound
    assert memory_limit(tmp_path / "none") is None
