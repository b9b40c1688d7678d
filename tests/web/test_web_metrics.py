"""``/metrics``: it is valid for Prometheus, counts what happened, and is not for everybody."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fakes.origin import Asked, Line
from fakes.raw import ask, chat, completion, request
from fakes.stand import ADMIN_KEY, Stand, running
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from gatekeeper.errors import Refusal
from gatekeeper.tallies import Figure, Histogram, Tallies, summed
from gatekeeper.web.metrics import KINDS, Metrics
from gatekeeper.web.siblings import OLD_MS, Siblings

TOKEN = "scrape-me-0123456789"


async def behaves(asked: Asked, line: Line) -> None:
    if b'"fail"' in asked.body:
        await line.head(500, Content_Type="application/json", Content_Length="2")
        await line.send(b"{}")
        return
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("metrics"), behaves, server=f'metrics_token = "{TOKEN}"') as found:
        yield found


def figures(stand: Stand, **headers: str) -> dict[tuple[str, tuple[str, ...]], float]:
    answer = httpx.get(f"{stand.url}/metrics", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return {
        (one.name, tuple(value for _, value in sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(answer.text)
        for one in family.samples
    }


def test_what_happened_is_counted(stand):
    before = figures(stand)
    for _ in range(3):
        assert ask(stand.url, request(stand.key, chat())).status == 200
    assert ask(stand.url, request(stand.key, json.dumps({"model": "fail", "messages": []}).encode())).status == 500
    assert ask(stand.url, request("gk_" + "0" * 40, chat())).status == 401
    stand.records(4)
    after = figures(stand)

    def more(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0.0)

    assert more("gatekeeper_requests_total", "complete", "chat", "measured") == 3
    assert more("gatekeeper_units_total", "complete", "chat", "measured") == 21
    assert more("gatekeeper_tokens_total", "input", "chat") == 9
    assert more("gatekeeper_tokens_total", "output", "chat") == 12
    assert sum(count for (name, _), count in after.items() if name == "gatekeeper_refusals_total") >= 1
    assert (
        more("gatekeeper_added_seconds_count", "both") == more("gatekeeper_added_seconds_bucket", "+Inf", "both") >= 3
    )
    assert more("gatekeeper_upstream_first_byte_seconds_count", "origin") == 4
    assert more("gatekeeper_ledger_batch_size_sum") >= 8
    assert after["gatekeeper_open_calls", ()] == after["gatekeeper_holds", ()] == 0
    assert (after["gatekeeper_ledger_up", ()], after["gatekeeper_breaker_open", ("origin",)]) == (1, 0)
    assert after["process_resident_memory_bytes", ()] > 10_000_000
    assert not any("secret" in json.dumps(key) or stand.key in json.dumps(key) for key in after)


def test_every_figure_that_can_be_told_has_its_words():
    tallies = Tallies()
    tallies.ended("chat", "complete", "measured", 1, {"input": 1, "output": True, "total": "x"})
    tallies.refused("missing_key")
    tallies.answered("origin", 0.1)
    tallies.failed("origin", "connect")
    tallies.passed(0.001, 0.002)
    for figure in tallies.figures():
        assert len(figure.labels) == len(KINDS[figure.name].labels), figure


@pytest.mark.parametrize(
    ("client", "headers", "open_to"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("10.0.0.7", {}, False),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.9"}, False),
        ("127.0.0.1", {"forwarded": "for=203.0.113.9"}, False),
        ("127.0.0.1", {"x-forwarded-host": "llm.example.com"}, False),
        ("127.0.0.1", {"cf-connecting-ip": "203.0.113.9"}, False),
        # A proxy that says nothing of itself, and a browser here that was led by a name.
        ("127.0.0.1", {"host": "llm.example.com"}, False),
        ("127.0.0.1", {"host": "rebound.example.com:8080"}, False),
        ("127.0.0.1", {"host": "localhost:8080"}, True),
        ("127.0.0.1", {"host": "127.0.0.1:8080"}, True),
        ("::1", {"host": "[::1]:8080"}, True),
        ("10.0.0.7", {"x-admin-key": ADMIN_KEY}, True),
        ("10.0.0.7", {"x-admin-key": "guess"}, False),
        ("127.0.0.1", {"x-admin-key": "guess"}, False),
        ("10.0.0.7", {"authorization": f"Bearer {TOKEN}"}, True),
        ("127.0.0.1", {"authorization": "Bearer guess"}, False),
        ("10.0.0.7", {"authorization": "Bearer "}, False),
        (None, {}, False),
    ],
)
def test_from_elsewhere_a_key_is_needed(stand, client, headers, open_to):
    house = stand.house
    metrics = Metrics(house.siblings, house._shared_figures, house.live)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    asked = Request({"type": "http", "headers": raw, "client": None if client is None else (client, 1)})
    if open_to:
        metrics.check(asked)
    else:
        with pytest.raises(Refusal):
            metrics.check(asked)


def test_histograms_of_several_workers_are_one():
    one, other = Histogram((1, 2)), Histogram((1, 2))
    for value in (0.5, 1, 1.5):
        one.add(value)
    other.add(9)
    added = summed(
        [Figure("x", (), one.told()), Figure("x", (), other.told()), Figure("n", ("a",), 2), Figure("n", ("a",), 3)]
    )
    assert added == {("x", ()): [[1, 2], [2, 1, 1], 12.0], ("n", ("a",)): 5}


class Still:
    """A clock that stands until it is told."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def test_who_has_not_written_for_long_or_wrote_nonsense_is_not_counted_among_the_living(tmp_path: Path):
    clock = Still()
    siblings = Siblings(tmp_path, lambda: {"generation": "g"}, clock)
    (tmp_path / "1.worker").write_text(json.dumps({"generation": "old", "pid": 1, "at_ms": clock.ms, "alive": True}))
    (tmp_path / "2.worker").write_text("{")
    (tmp_path / "3.worker").write_text('{"pid": 3}')
    assert [(each["generation"], each["alive"]) for each in siblings.all()] == [("g", True), ("old", True)]
    clock.ms += OLD_MS
    assert [(each["generation"], each["alive"]) for each in siblings.all()] == [("g", True), ("old", False)]
    siblings.write(alive=False)
    (mine,) = [place for place in tmp_path.glob("*.worker") if place.stem not in "123"]
    assert json.loads(mine.read_text())["alive"] is False
    tmp_path.chmod(0o500)
    siblings.write()
    tmp_path.chmod(0o700)
