"""``serve --workers``: several processes on one address and one database, and whoever watches over them."""

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

WORKERS = 2
USAGE = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}
CALLS = 40
FIT = 12
STOPS_WITHIN_S = 20

CONFIG = """
plans = "plans"
[database]
url = "sqlite:///gatekeeper.sqlite"
[keys]
default_plan = "tiny"
[upstreams.up]
url = "http://127.0.0.1:{port}"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "up"
estimate = "100"
"""
# Calls of 100 units each: so many fit.
PLAN = f"""
monthly_price = 0
[quota]
units = {FIT * 100}
window = "month"
when_used = "block"
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


def children(pid: int) -> list[int]:
    return [int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(true, within_s: float = STOPS_WITHIN_S) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def read_lines(stream, pattern: str, count: int) -> str:
    said = ""
    while len(re.findall(pattern, said)) < count:
        line = stream.readline()
        assert line, f"it ended without saying {pattern!r} {count} times:\n{said}"
        said += line
    return said


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        if b'"stream"' in asked:
            self.stream()
            return
        body = json.dumps({"usage": USAGE}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self) -> None:
        """Pieces for about as long as workers are replaced."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for _ in range(40):
            self.wfile.write(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
            time.sleep(0.05)
        self.wfile.write(
            b'data: {"choices":[],"usage":{"prompt_tokens":60,"completion_tokens":40,"total_tokens":100}}\n\n'
        )
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def started(folder: Path, cli, upstream: int) -> str:
    (folder / "plans").mkdir()
    (folder / "plans" / "tiny.toml").write_text(PLAN)
    (folder / "gateway.toml").write_text(CONFIG.format(port=upstream))
    assert cli("customers", "create", "Ada", "--id", "ada").code == 0
    return json.loads(cli("keys", "create", "ada", "--json").out)["key"]


def ask(url: str, key: str) -> int:
    body = {"model": "m", "messages": []}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}).status_code


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes under /proc")
def test_workers_share_one_exact_cap_and_are_replaced_when_they_die(cli, process, folder, upstream):
    key = started(folder, cli, upstream)
    with process("serve", "--port", "0", "--workers", str(WORKERS)) as running:
        said = read_lines(running.stderr, "listening on", WORKERS)
        (url,) = set(re.findall(r"listening on (\S+) with", said))
        with ThreadPoolExecutor(12) as threads:
            statuses = list(threads.map(lambda _: ask(url, key), range(CALLS)))
        assert statuses.count(200) == FIT
        assert set(statuses) <= {200, 402, 429}

        (first, *_) = children(running.pid)
        os.kill(first, signal.SIGKILL)
        read_lines(running.stderr, "listening on", 1)
        assert len(children(running.pid)) == WORKERS
        # The dead worker's connections are gone with it; a new one is served by whoever lives.
        assert httpx.get(f"{url}/readyz").json() == {"ready": True}

        workers = children(running.pid)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=STOPS_WITHIN_S)
        assert running.returncode == 0
        assert not any(alive(worker) for worker in workers)
    total = json.loads(cli("usage", "ada", "--json").out)
    assert (total["requests"], total["tokens_used"]) == (FIT, FIT * 100)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes under /proc")
def test_workers_whose_parent_is_killed_stop(cli, process, folder, upstream):
    started(folder, cli, upstream)
    with process("serve", "--port", "0", "--workers", "2") as running:
        read_lines(running.stderr, "listening on", 2)
        workers = children(running.pid)
        running.kill()
        until(lambda: not any(alive(worker) for worker in workers))
        running.communicate(timeout=STOPS_WITHIN_S)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes under /proc")
def test_replacing_the_workers_refuses_no_call_and_cuts_no_stream(cli, process, folder, upstream):
    key = started(folder, cli, upstream)
    failed, stop = [], threading.Event()

    def ask_again_and_again(url: str) -> int:
        count = 0
        while not stop.is_set():
            # A new connection each time: it meets whichever socket the kernel chooses.
            try:
                count += httpx.get(f"{url}/healthz", timeout=15).status_code == 200
            except httpx.HTTPError as error:
                failed.append(error)
        return count

    def stream(url: str) -> bytes:
        body = {"model": "m", "messages": [], "stream": True}
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20).content

    with process("serve", "--port", "0", "--workers", "2") as running, ThreadPoolExecutor(4) as threads:
        said = read_lines(running.stderr, "listening on", 2)
        (url,) = set(re.findall(r"listening on (\S+) with", said))
        before = set(children(running.pid))
        streams = [threads.submit(stream, url) for _ in range(2)]
        asking = [threads.submit(ask_again_and_again, url) for _ in range(2)]
        running.send_signal(signal.SIGUSR2)
        read_lines(running.stderr, "the workers are replaced", 1)
        until(lambda: len(children(running.pid)) == 2)
        stop.set()
        assert not before & set(children(running.pid))
        assert all(done.result().endswith(b"data: [DONE]\n\n") for done in streams)
        assert all(asked.result() > 5 for asked in asking)
        assert not failed
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=STOPS_WITHIN_S)
        assert running.returncode == 0
    assert json.loads(cli("usage", "ada", "--json").out)["tokens_used"] == 200


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes under /proc")
def test_new_workers_that_do_not_come_up_leave_the_old_ones_in_place(cli, process, folder, upstream):
    started(folder, cli, upstream)
    with process("serve", "--port", "0", "--workers", "1") as running:
        said = read_lines(running.stderr, "listening on", 1)
        (url,) = set(re.findall(r"listening on (\S+) with", said))
        before = children(running.pid)
        (folder / "gateway.toml").write_text("this is no TOML")
        running.send_signal(signal.SIGUSR2)
        read_lines(running.stderr, "the old ones stay", 1)
        until(lambda: children(running.pid) == before)
        assert httpx.get(f"{url}/readyz").json() == {"ready": True}
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=STOPS_WITHIN_S)
        assert running.returncode == 0
