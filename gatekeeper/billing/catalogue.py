"""Brings the plans into a biller's account, and says which price ids they have there.

The rule: after whatever happened the account is read again, and only what still differs is done. A run that is killed
anywhere leaves an account that the next run brings to the same end. A key that is derived from the content repeats its
first answer for a day (a 500 too, and of an object that is gone since): whoever has seen that it did not help takes
another.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from gatekeeper.clock import Clock
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import Catalogue, Made
from gatekeeper.rules.billing import NotTaken, Throttled
from gatekeeper.rules.catalogue import CannotSell, Sold, Wanted
from gatekeeper.rules.drift import Account, Action, Change, Difference, differ, sold

T = TypeVar("T")

# Two are enough where nothing goes wrong: one that acts, one that finds nothing to do.
ROUNDS_MAX = 5
# Asked to come back later, so often, so long at most.
PATIENCE = 5
_WAIT_S = 2.0
_WAIT_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class Applied:
    """``done`` in its order; ``sold`` as it stands after it."""

    done: tuple[Change, ...]
    sold: Sold
    notes: tuple[str, ...]


async def compare(catalogue: Catalogue, wanted: Wanted, clock: Clock) -> tuple[Difference, Sold]:
    """What would be done, and the price ids as they stand. Changes nothing."""
    account = await _read(catalogue, wanted, clock)
    return differ(wanted, account), sold(wanted, account)


async def price_ids(catalogue: Catalogue, wanted: Wanted, clock: Clock) -> Sold:
    """The ids that subscriptions are made of. Raises CannotSell where any of them is not in the account."""
    found = sold(wanted, await _read(catalogue, wanted, clock))
    lacking = tuple(
        f"plan {price.plan_id!r} has no {price.role} price in the account: run 'gatekeeper stripe apply'"
        for price in wanted.prices
        if price.plan_id not in found.prices or getattr(found.prices[price.plan_id], price.role.value) is None
    )
    if lacking:
        raise CannotSell(lacking)
    return found


async def apply(
    catalogue: Catalogue, wanted: Wanted, clock: Clock, nonce: str, show: Callable[[Change, str], None]
) -> Applied:
    """Do all that differs. ``nonce`` is random, for keys that must be new. ``show`` gets each webhook secret, once, and
    returns when a person can read it.

    Raises CannotSell before anything was changed, and what the catalogue raises where it goes on failing. Cancelled:
    run it again."""
    return await _Applying(catalogue, wanted, clock, nonce, show).run()


class _Applying:
    def __init__(
        self, catalogue: Catalogue, wanted: Wanted, clock: Clock, nonce: str, show: Callable[[Change, str], None]
    ) -> None:
        self._catalogue = catalogue
        self._wanted = wanted
        self._clock = clock
        self._nonce = nonce
        self._show = show
        self._done: list[Change] = []
        self._keys: set[str] = set()
        # Endpoints that this run has made, with their secrets, until they were found in the account.
        self._unseen: dict[str, tuple[Change, str]] = {}

    async def run(self) -> Applied:
        """Rounds, until one finds nothing to do."""
        failed: Exception | None = None
        for number in range(ROUNDS_MAX):
            account = await _read(self._catalogue, self._wanted, self._clock)
            if await self._show_secrets(account):
                account = await _read(self._catalogue, self._wanted, self._clock)
            difference = differ(self._wanted, account)
            if difference.problems:
                raise CannotSell(difference.problems)
            if not difference.changes:
                return Applied(tuple(self._done), sold(self._wanted, account), difference.notes)
            failed = await self._round(difference.changes, number)
        raise failed or Fault("stripe", FaultKind.PROTOCOL, "what was changed does not stay changed")

    async def _round(self, changes: tuple[Change, ...], number: int) -> Exception | None:
        """All changes, up to the first that fails."""
        for change in changes:
            try:
                made = await _patient(partial(self._perform, change, number), self._clock)
            except (Fault, NotTaken) as failed:
                # What became of it, only the account knows.
                return failed
            if change not in self._done:
                self._done.append(change)
            if made.secret is not None and change.action is Action.CREATE:
                self._unseen[made.id] = (change, made.secret)
        return None

    async def _perform(self, change: Change, number: int) -> Made:
        key = f"gatekeeper-{hashlib.sha256(repr(_content(change)).encode()).hexdigest()[:40]}"
        if key in self._keys:
            key = f"{key}-{self._nonce}-{number}"
        self._keys.add(key)
        return await self._catalogue.perform(change, key)

    async def _show_secrets(self, account: Account) -> bool:
        """Show the secrets of endpoints that exist; one that does not was only an old answer under its key."""
        shown = False
        for held in account.endpoints:
            if held.id in self._unseen and not held.shown:
                change, secret = self._unseen[held.id]
                self._show(change, secret)
                await _patient(partial(self._catalogue.shown, change, held.id), self._clock)
                shown = True
        self._unseen.clear()
        return shown


def _content(change: Change) -> tuple[object, ...]:
    """What makes a change the same one in another run."""
    return change.kind, change.action.value, change.title, change.details


async def _read(catalogue: Catalogue, wanted: Wanted, clock: Clock) -> Account:
    return await _patient(lambda: catalogue.read(wanted.names), clock)


async def _patient(call: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """Come back when it is asked for."""
    for tried in range(PATIENCE):
        try:
            return await call()
        except Throttled as throttled:
            if tried == PATIENCE - 1:
                raise
            asked_s = _WAIT_S * 2**tried if throttled.retry_after_s is None else throttled.retry_after_s
            await clock.sleep(min(max(asked_s, 0.0), _WAIT_MAX_S))
    raise AssertionError("unreachable")
