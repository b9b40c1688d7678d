"""``/metrics`` for Prometheus. Source: its exposition format 0.0.4.

The rule: whoever asks pays, not the calls: figures are put together when they are asked for. With several workers one
of them answers for all of its host, with what the others wrote within the last second (``web.siblings``); what stands
in the database is the same whoever answers, and told once.

Open to whoever asks from this machine and through no proxy; anybody else brings X-Admin-Key, or ``[server]
metrics_token`` as a bearer token.
"""

import hmac
import ipaddress
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.tallies import Figure, summed
from gatekeeper.version import __version__
from gatekeeper.web.openapi import routes_of
from gatekeeper.web.openapi.operating import METRICS
from gatekeeper.web.siblings import Siblings

_FORWARDED = ("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip")
_MICRO = 1_000_000


class _Kind(NamedTuple):
    """How a figure is told."""

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily] | type[HistogramMetricFamily]
    name: str
    said: str
    labels: tuple[str, ...] = ()
    per: int = 1


_COUNTER, _GAUGE, _HISTOGRAM = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
_ENDED = ("route", "outcome", "source")
KINDS: Mapping[str, _Kind] = {
    "requests": _Kind(_COUNTER, "gatekeeper_requests", "Calls that were admitted and have ended.", _ENDED),
    "units": _Kind(_COUNTER, "gatekeeper_units", "Units that were charged against quotas.", _ENDED, _MICRO),
    "tokens": _Kind(_COUNTER, "gatekeeper_tokens", "Tokens as providers state them.", ("route", "kind")),
    "refusals": _Kind(_COUNTER, "gatekeeper_refusals", "Calls on configured routes that were refused.", ("code",)),
    "added_seconds": _Kind(
        _HISTOGRAM,
        "gatekeeper_added_seconds",
        "Time of a call in the gateway: before its upstream was asked (the request's body is read in it), after the "
        "answer had ended (the record is made durable in it), and both.",
        ("part",),
    ),
    "upstream_seconds": _Kind(
        _HISTOGRAM, "gatekeeper_upstream_first_byte_seconds", "Until the head of an answer.", ("upstream",)
    ),
    "upstream_failures": _Kind(
        _COUNTER, "gatekeeper_upstream_failures", "Tries that did not serve their call.", ("upstream", "fault")
    ),
    "batch_size": _Kind(_HISTOGRAM, "gatekeeper_ledger_batch_size", "Calls in one transaction of the ledger."),
    "batch_seconds": _Kind(_HISTOGRAM, "gatekeeper_ledger_batch_seconds", "Until such a transaction is committed."),
    "open_calls": _Kind(_GAUGE, "gatekeeper_open_calls", "Calls that are being served."),
    "settling": _Kind(_GAUGE, "gatekeeper_settling_calls", "Calls that have ended and are not in the ledger yet."),
    "journal": _Kind(_GAUGE, "gatekeeper_journal_records", "Records that wait in journals."),
    "breaker_open": _Kind(_GAUGE, "gatekeeper_breaker_open", "Workers that leave an upstream alone.", ("upstream",)),
    "workers": _Kind(_GAUGE, "gatekeeper_workers", "Processes of this host that serve.", ("generation",)),
    "holds": _Kind(_GAUGE, "gatekeeper_holds", "Calls that hold something, of all hosts."),
    "held_tokens": _Kind(_GAUGE, "gatekeeper_held_output_tokens", "Output tokens that they hold."),
    "deliveries": _Kind(_GAUGE, "gatekeeper_deliveries", "Notifications that wait or were given up.", ("state",)),
    "outbox_waiting": _Kind(
        _GAUGE, "gatekeeper_outbox_waiting_batches", "Batches that the biller is still to be told."
    ),
    "outbox_dead": _Kind(_GAUGE, "gatekeeper_outbox_dead_batches", "Batches that need a person."),
    "outbox_age_s": _Kind(_GAUGE, "gatekeeper_outbox_oldest_seconds", "Age of the oldest usage that is not told."),
    "ledger_up": _Kind(_GAUGE, "gatekeeper_ledger_up", "Whether the database answered just now."),
    "memory_bytes": _Kind(_GAUGE, "process_resident_memory_bytes", "Memory of all workers."),
    "cpu_seconds": _Kind(_COUNTER, "process_cpu_seconds", "Processor time of all workers."),
    "descriptors": _Kind(_GAUGE, "process_open_fds", "File descriptors of all workers."),
    "threads": _Kind(_GAUGE, "process_threads", "Threads of all workers."),
}
# What a worker that is gone has told still counts; all else of it is gone too.
_KEPT = frozenset(name for name, kind in KINDS.items() if kind.kind is not _GAUGE)


@dataclass(frozen=True, slots=True)
class Metrics:
    """``shared`` are the figures that are the same for all processes; it raises Fault."""

    siblings: Siblings
    shared: Callable[[], Awaitable[Iterable[Figure]]]
    gateway: Callable[[], Gateway]

    def routes(self) -> list[BaseRoute]:
        """The URL, for ``web.app``."""
        return routes_of(METRICS, self)

    async def metrics(self, request: Request) -> Response:
        """The figures as text."""
        self.check(request)
        figures = list(_of_workers(self.siblings.all()))
        try:
            figures += [*await self.shared(), Figure("ledger_up", (), 1)]
        except Fault:
            figures.append(Figure("ledger_up", (), 0))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Told(summed(figures)))
        return Response(
            generate_latest(registry), headers={"cache-control": "no-store"}, media_type=CONTENT_TYPE_PLAIN_0_0_4
        )

    def check(self, request: Request) -> None:
        """Raises Refusal for whoever may not see them."""
        gateway, sent = self.gateway(), request.headers.get("x-admin-key")
        admin, token = gateway.admin_key, gateway.server.metrics_token
        if sent is not None and admin is not None and hmac.compare_digest(sent.encode(), admin.reveal().encode()):
            return
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if token is not None and scheme.lower() == "bearer":
            if hmac.compare_digest(bearer.strip().encode(), token.reveal().encode()):
                return
        elif sent is None and not bearer and _is_here(request):
            return
        raise Refusal(
            Code.ADMIN_KEY_REQUIRED,
            "From elsewhere, figures are for whoever has a key.",
            hint="send X-Admin-Key, or [server] metrics_token as a bearer token",
        )


def process_figures() -> Iterator[Figure]:
    """What this process takes of its machine."""
    yield Figure("cpu_seconds", (), time.process_time())
    yield Figure("threads", (), threading.active_count())
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        yield Figure("memory_bytes", (), pages * os.sysconf("SC_PAGE_SIZE"))
        yield Figure("descriptors", (), len(os.listdir("/proc/self/fd")))
    except OSError:
        # Another system than Linux: it is not told.
        return


def _of_workers(told: Iterable[Mapping[str, Any]]) -> Iterator[Figure]:
    for worker in told:
        for name, labels, value in worker["figures"]:
            if worker["alive"] or name in _KEPT:
                yield Figure(name, tuple(labels), value)
        if worker["alive"]:
            yield Figure("workers", (worker["generation"],), 1)


class _Told(Collector):
    """Figures as the client library takes them."""

    def __init__(self, figures: Mapping[tuple[str, tuple[str, ...]], Any]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for (name, labels), value in sorted(self._figures.items(), key=lambda each: each[0]):
            how = KINDS.get(name)
            # A worker of another version, during an update, may tell of what this one does not know.
            if how is None or len(labels) != len(how.labels):
                continue
            family = found.get(name)
            if family is None:
                family = found[name] = how.kind(how.name, how.said, labels=how.labels)
            if isinstance(family, HistogramMetricFamily):
                family.add_metric(labels, _buckets(value), value[2])
            elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
                family.add_metric(labels, value / how.per)
        version = GaugeMetricFamily("gatekeeper_build", "Which version this is.", labels=("version",))
        version.add_metric((__version__,), 1)
        return [version, *found.values()]


def _buckets(told: Any) -> list[tuple[str, float]]:
    bounds, counts, _ = told
    found, so_far = [], 0
    for bound, count in zip([*(f"{each:g}" for each in bounds), "+Inf"], counts, strict=True):
        so_far += count
        found.append((bound, so_far))
    return found


def _is_here(request: Request) -> bool:
    """Whether it comes from this machine and through no proxy: a proxy on this machine asks for others, and so does a
    browser here, led by a name of somebody else's that has this machine's address."""
    if request.client is None or any(name in _FORWARDED or name.startswith("x-forwarded-") for name in request.headers):
        return False
    host = request.headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return _is_loopback(request.client.host) and ("." not in name or _is_address(name))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
