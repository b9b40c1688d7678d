"""Several workers of one host, seen as one: any of them tells the figures of all, and reloads all."""

import json
import os
import re
import signal
import time
from pathlib import Path

import httpx
import pytest

CONFIG = """
plans = "plans"
[database]
url = "sqlite:///gatekeeper.sqlite"
[admin]
key = "admin-secret"
[keys]
default_plan = "tiny"
[upstreams.up]
url = "http://127.0.0.1:9"
breaker = false
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "up"
"""
PLAN = "monthly_price = 0\n"
ADMIN = {"X-Admin-Key": "admin-secret"}
STOPS_WITHIN_S = 20
CALLS = 12


def wait(running, pattern: str, count: int) -> str:
    said = ""
    while len(re.findall(pattern, said)) < count:
        line = running.stderr.readline()
        assert line, said
        said += line
    return said


def counted(url: str, name: str) -> float:
    """The sum of a figure over all its labels, as told to a new connection: whichever worker that is."""
    text = httpx.get(f"{url}/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))


def until(true, within_s: float = 15) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)


@pytest.fixture
def served(folder: Path, process):
    (folder / "plans").mkdir()
    (folder / "plans" / "tiny.toml").write_text(PLAN)
    (folder / "gateway.toml").write_text(CONFIG)
    with process("serve", "--port", "0", "--workers", "2") as running:
        (url,) = set(re.findall(r"listening on (\S+) with", wait(running, "listening on", 2)))
        yield running, url
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=STOPS_WITHIN_S)


def refused_calls(url: str, count: int) -> None:
    for _ in range(count):
        assert httpx.post(f"{url}/v1/chat/completions", json={}).status_code == 401


def test_any_worker_tells_the_figures_of_all_and_those_of_the_dead_stay(served):
    running, url = served
    refused_calls(url, CALLS)
    for _ in range(6):
        until(lambda: counted(url, "gatekeeper_refusals_total") == CALLS)
    assert counted(url, "gatekeeper_workers") == 2
    workers = httpx.get(f"{url}/admin/config", headers=ADMIN).json()["workers"]
    os.kill(workers[0]["pid"], signal.SIGKILL)
    wait(running, "listening on", 1)
    # What the dead one had counted has not gone; what it had open has.
    until(lambda: counted(url, "gatekeeper_workers") == 2 and counted(url, "gatekeeper_refusals_total") == CALLS)
    refused_calls(url, 3)
    until(lambda: counted(url, "gatekeeper_refusals_total") == CALLS + 3)


def test_a_reload_that_one_worker_is_asked_for_reaches_all_and_one_with_mistakes_none(served, folder):
    _, url = served
    before = httpx.get(f"{url}/admin/config", headers=ADMIN).json()
    assert {each["generation"] for each in before["workers"]} == {before["generation"]}
    (folder / "plans" / "big.toml").write_text("monthly_price = 9\n")
    told = httpx.post(f"{url}/admin/config/reload", headers=ADMIN, timeout=20).json()
    assert (told["complete"], told["before"]) == (True, before["generation"])
    assert {each["generation"] for each in told["workers"]} == {told["generation"]} != {before["generation"]}
    assert len(told["workers"]) == 2
    for _ in range(8):
        assert len(httpx.get(f"{url}/admin/plans", headers=ADMIN).json()["plans"]) == 2

    says_where_a_mistake_is(url, folder)


def says_where_a_mistake_is(url: str, folder: Path) -> None:
    (folder / "gateway.toml").write_text(CONFIG.replace('upstream = "up"', 'upstream = "upp"'))
    answer = httpx.post(f"{url}/admin/config/reload", headers=ADMIN, timeout=20)
    assert answer.status_code == 409
    assert "gateway.toml:15" in answer.json()["error"]["message"]
    told = httpx.post(f"{url}/admin/config/validate", headers=ADMIN, json={}, timeout=20).json()
    assert not told["ok"]
    (mistake,) = [each for each in told["mistakes"] if each["severity"] == "error"]
    assert (mistake["line"], mistake["file"]) == (15, "gateway.toml")
    assert "^^^" in mistake["shown"]
    told = httpx.post(f"{url}/admin/config/validate", headers=ADMIN, json={"text": CONFIG}, timeout=20).json()
    assert (told["ok"], told["routes"], told["plans"]) == (True, 1, 2)
    wrong = {"text": CONFIG, "plans": {"tiny.toml": "monthly_price = -1\n"}}
    told = httpx.post(f"{url}/admin/config/validate", headers=ADMIN, json=wrong, timeout=20).json()
    assert (told["ok"], told["mistakes"][0]["file"]) == (False, "tiny.toml")
    assert json.dumps(told).count("admin-secret") == 0
    assert len(httpx.get(f"{url}/admin/config", headers=ADMIN).json()["workers"]) == 2
