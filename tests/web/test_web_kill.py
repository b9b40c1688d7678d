"""kill -9 in the middle of a stream: the next start settles what was held, and nothing is counted twice."""

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.origin import Asked, Line, Origin
from fakes.raw import DONE, Client, ask, chat, completion, delta, request
from fakes.stand import PLANS, ROUTES, gateway_text

from gatekeeper.accounts import Accounts, KeyWish
from gatekeeper.clock import SystemClock
from gatekeeper.config import parse_gateway
from gatekeeper.meters import Mark, Outcome
from gatekeeper.ports import UsageRecord
from gatekeeper.proxy.outage import NOTE
from gatekeeper.stores import open_store

STREAMED = 300


async def streams_or_answers(asked: Asked, line: Line) -> None:
    if b'"stream": true' in asked.body:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        await line.chunk(delta("x" * STREAMED))
        await line.gone()
        return
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@contextlib.contextmanager
def origin_in_a_thread() -> Iterator[int]:
    loop = asyncio.new_event_loop()
    origin = Origin(streams_or_answers)
    loop.run_until_complete(origin.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield origin.port
    finally:
        asyncio.run_coroutine_threadsafe(origin.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class Process:
    """``gatekeeper serve`` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gatekeeper.cli.main", "serve", "--config", "gateway.toml", "--port", str(port)],
            cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:
            said.append(line)
            if "listening" in line:
                break
        assert said and "listening" in said[-1], said
        wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return ask(self.url, request(None, method="GET", path="/readyz"), "GET").status == 200
        except OSError:
            return False

    def end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.communicate(timeout=30)


def wait_until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError("it did not come true")


def number(folder: Path, question: str) -> int:
    """One number out of the database, read behind the gateway's back."""
    database = sqlite3.connect(folder / "g.sqlite", timeout=10)
    try:
        found: int = database.execute(question).fetchone()[0]
        return found
    finally:
        database.close()


def held(folder: Path) -> int:
    return number(folder, "SELECT COALESCE(SUM(held), 0) FROM counter")


def progress(folder: Path) -> int:
    return number(folder, "SELECT COUNT(*) FROM hold WHERE state = 'open' AND progress_units_micro > 0")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_of_a_call_whose_process_was_killed_the_live_progress_is_charged(tmp_path):
    live = ROUTES.replace(
        'name = "chat"\n', 'name = "chat"\nlive = "sum(events, len(.json.choices[0].delta.content)) * 7"\n'
    )
    with origin_in_a_thread() as port:
        text = gateway_text(f"sqlite:///{tmp_path}/g.sqlite", port, live, ledger="hold_ttl_s = 1.5\nheartbeat_s = 0.2")
        key = installed(tmp_path, text)
        process = Process(tmp_path)
        client = Client(process.url)
        client.send(request(key, chat(True)))
        client.until(b"xxx")
        wait_until(lambda: progress(tmp_path) == 1)
        process.end(signal.SIGKILL)
        client.close()
        process = Process(tmp_path)
        try:
            wait_until(lambda: held(tmp_path) == 0)
        finally:
            process.end(signal.SIGTERM)
    [record], wrong = asyncio.run(_records(tmp_path))
    assert (record.note, record.source, record.units_micro) == ("recovered", Mark.ESTIMATED, 7 * STREAMED * 1_000_000)
    assert wrong == ([], [])


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_what_was_held_when_the_process_was_killed_is_settled_by_the_next_one(tmp_path):
    """Pitfall 24: a hold of a dead process is found and given back."""
    with origin_in_a_thread() as port:
        text = gateway_text(f"sqlite:///{tmp_path}/g.sqlite", port, ledger="hold_ttl_s = 1.5\nheartbeat_s = 0.2")
        key = installed(tmp_path, text)
        process = Process(tmp_path)
        complete = [ask(process.url, request(key, chat())) for _ in range(3)]
        assert [(answer.status, answer.ended) for answer in complete] == [(200, True)] * 3
        clients = [Client(process.url) for _ in range(3)]
        for client in clients:
            client.send(request(key, chat(True)))
            client.until(b"xxx")
        wait_until(lambda: progress(tmp_path) == 3)
        process.end(signal.SIGKILL)
        for client in clients:
            while client.more():
                pass
            assert DONE not in client.read
            assert not client.read.endswith(b"0\r\n\r\n")
            client.close()
        assert held(tmp_path) > 0
        process = Process(tmp_path)
        try:
            wait_until(lambda: held(tmp_path) == 0)
        finally:
            process.end(signal.SIGTERM)
    records, wrong = asyncio.run(_records(tmp_path))
    measured = [record for record in records if record.source is Mark.MEASURED]
    assert [(record.outcome, record.units_micro) for record in measured] == [(Outcome.COMPLETE, 7_000_000)] * 3
    ids = {answer.header("x-gatekeeper-call-id") for answer in complete}
    assert {record.call_id for record in measured} == ids
    recovered = [record for record in records if record.note == "recovered"]
    assert len(recovered) == 3 == len(records) - 3
    assert all(record.source is Mark.ESTIMATED for record in recovered)
    assert all(record.units_micro >= STREAMED // 3 * 1_000_000 for record in recovered)
    assert wrong == ([], [])


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_call_that_was_let_through_without_the_ledger_is_on_record_after_a_kill(tmp_path):
    ledger = 'on_ledger_failure = "open"\nheartbeat_s = 0.2'
    with origin_in_a_thread() as port:
        text = gateway_text(f"sqlite:///{tmp_path}/g.sqlite", port, ledger=ledger)
        key = installed(tmp_path, text)
        process = Process(tmp_path)
        assert ask(process.url, request(key, chat())).status == 200
        # Somebody else has the database, and does not let it go.
        other = sqlite3.connect(tmp_path / "g.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        client = Client(process.url)
        try:
            client.send(request(key, chat(True)))
            client.until(b"xxx")
            ended = ask(process.url, request(key, chat()))
            assert ended.status == 200
        finally:
            process.end(signal.SIGKILL)
            other.close()
            client.close()
        process = Process(tmp_path)
        try:
            wait_until(lambda: number(tmp_path, "SELECT COUNT(*) FROM usage_record") == 3)
        finally:
            process.end(signal.SIGTERM)
    records, wrong = asyncio.run(_records(tmp_path))
    first, cut, complete = sorted(records, key=lambda record: record.started_ms)
    assert (first.note, complete.note, complete.units_micro) == (None, NOTE, 7_000_000)
    assert (cut.note, cut.source, cut.outcome) == (f"recovered; {NOTE}", Mark.ESTIMATED, Outcome.CUT)
    # The usual input and output of such a call: nobody knows how far it came.
    assert cut.units_micro > 7_000_000
    assert wrong == ([], [])
    assert list((tmp_path / "gatekeeper-journal").iterdir()) == []


def installed(folder: Path, text: str) -> str:
    """The configuration on disk, and the key of a customer."""
    (folder / "gateway.toml").write_text(text)
    (folder / "plans").mkdir()
    for name, plan in PLANS.items():
        (folder / "plans" / name).write_text(plan)
    return asyncio.run(_customer_with_key(folder, text))


async def _customer_with_key(folder: Path, text: str) -> str:
    store = await open_store(f"sqlite:///{folder}/g.sqlite", clock=SystemClock())
    try:
        gateway = parse_gateway(text, "gateway.toml", PLANS, {})
        accounts = Accounts(store, store, lambda: gateway, SystemClock())
        await accounts.create_customer("Acme", customer_id="acme", plan_id="pro")
        return (await accounts.create_key("acme", KeyWish())).secret
    finally:
        await store.close()


async def _records(folder: Path) -> tuple[list[UsageRecord], tuple[object, object]]:
    store = await open_store(f"sqlite:///{folder}/g.sqlite", clock=SystemClock())
    try:
        return list(await store.records(customer_id="acme")), await store.unbalanced()
    finally:
        await store.close()
