"""One Stripe account in memory: objects by kind, ids, time, and what is due later.

The rule: objects are dicts in the newest API shape (``shapes`` makes older ones); a key that begins with ``_`` is ours
and never leaves. Nothing here reads a clock of its own: time moves by ``run_due`` or with the clock that was handed in.
"""

import copy
import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gatekeeper.clock import Clock
from gatekeeper.demo.stripe.refusing import missing

Stored = dict[str, Any]
# The version that stripe-python 16.1.0 speaks (stripe._api_version.CURRENT).
NEWEST_VERSION = "2026-10-28.endive"
HOUR_S = 3600
DAY_S = 24 * HOUR_S


@dataclass(slots=True)
class Settings:
    """What an account's owner sets in the dashboard, and how slow the fake is. Change at any time."""

    # https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period: 1 hour unless set otherwise.
    finalize_after_s: int = HOUR_S
    # https://docs.stripe.com/billing/revenue-recovery/smart-retries: days after the first failure. Dashboard setting.
    retry_after_days: tuple[int, ...] = (3, 5, 7)
    # What becomes of the subscription then: "canceled", "unpaid" or "past_due" (same page).
    after_retries: str = "unpaid"
    # Meter events are processed asynchronously: summaries and previews lag by this much.
    meter_lag_s: int = 0
    # Errors of meter events are gathered for so long before they are reported.
    meter_report_after_s: int = 60
    # Identifiers are unique for "a rolling period of at least 24 hours" (SDK: MeterEventCreateParams.identifier).
    identifier_kept_s: int = DAY_S
    # A customer who comes without one has a card that works; False is a customer without a payment method.
    new_customers_have_a_card: bool = True


@dataclass(slots=True)
class Account:
    """State, time and jobs. ``emit`` is set by the events room before anything happens."""

    livemode: bool
    api_version: str
    standing_ms: int
    clock: Clock | None = None
    settings: Settings = field(default_factory=Settings)
    shelves: dict[str, dict[str, Stored]] = field(default_factory=dict)
    emit: Callable[[str, Stored, Mapping[str, Any] | None], None] = lambda kind, about, before: None
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _due: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    # While a job of the past runs, now is the time at which it was due.
    _job_ms: int | None = None

    @property
    def now_ms(self) -> int:
        """Epoch milliseconds."""
        if self._job_ms is not None:
            return self._job_ms
        return self.standing_ms if self.clock is None else self.clock.now_ms()

    @property
    def now_s(self) -> int:
        """Epoch seconds, which is all that Stripe knows."""
        return self.now_ms // 1000

    def new_id(self, prefix: str) -> str:
        """A fresh id; the same run gives the same ids."""
        return f"{prefix}_fake{next(self._numbers):08d}"

    def shelf(self, kind: str) -> dict[str, Stored]:
        """All objects of a kind by id, oldest first."""
        return self.shelves.setdefault(kind, {})

    def put(self, kind: str, prefix: str, fields: Mapping[str, Any]) -> Stored:
        """A new object with the fields that every object has."""
        made: Stored = {
            "id": fields.get("id") or self.new_id(prefix),
            "object": kind,
            "created": self.now_s,
            "livemode": self.livemode,
            **{name: value for name, value in fields.items() if name != "id"},
        }
        self.shelf(kind)[made["id"]] = made
        return made

    def get(self, kind: str, identifier: str, param: str = "id") -> Stored:
        """The object. Raises Refused (404)."""
        found = self.shelf(kind).get(identifier)
        if found is None:
            raise missing(kind.rpartition(".")[2], identifier, param)
        return found

    def find(self, identifier: str) -> Stored | None:
        """An object of any kind (ids are unique over all of them)."""
        return next((shelf[identifier] for shelf in self.shelves.values() if identifier in shelf), None)

    def at(self, when_s: int, job: Callable[[], None]) -> None:
        """Run ``job`` when time reaches ``when_s``. Jobs look at the state again: it may have moved on."""
        heapq.heappush(self._due, (when_s * 1000, next(self._numbers), job))

    def next_due_ms(self) -> int | None:
        """When the next job is due."""
        return self._due[0][0] if self._due else None

    def run_due(self, until_ms: int) -> None:
        """Run what is due by then, in order, each at its own time."""
        while self._due and self._due[0][0] <= until_ms:
            due_ms, _, job = heapq.heappop(self._due)
            self._job_ms = max(due_ms, self.standing_ms if self.clock is None else due_ms)
            try:
                job()
            finally:
                self._job_ms = None


def merge_metadata(stored: Stored, given: Mapping[str, Any]) -> None:
    """``metadata`` as Stripe merges it: a key set to "" goes, "" for the whole empties it
    (https://docs.stripe.com/api/metadata)."""
    wanted = given.get("metadata")
    if wanted is None:
        return
    if wanted == "":
        stored["metadata"] = {}
        return
    merged = {**stored.get("metadata", {}), **wanted}
    stored["metadata"] = {key: value for key, value in merged.items() if value != ""}


def set_fields(stored: Stored, given: Mapping[str, Any], names: Iterable[str]) -> Stored:
    """Copy the named parameters; "" unsets. Returns what stood there before and differs (an event's
    ``previous_attributes``)."""
    before = copy.deepcopy({name: stored.get(name) for name in (*names, "metadata")})
    for name in names:
        if name in given:
            stored[name] = None if given[name] == "" else copy.deepcopy(given[name])
    merge_metadata(stored, given)
    return {name: value for name, value in before.items() if stored.get(name) != value}
