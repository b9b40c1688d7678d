"""The limits that stand, and how an operator changes them while the gateway runs: one place for the command line and
the admin API. The rule: a change is in the database before anybody is told of it; this process applies it at once,
every other one within half a second.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar
from zoneinfo import ZoneInfo

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.config.limits import LimitMode, no_pair
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.ports import Customer, Store
from gatekeeper.rules.declared import EACH, UNDER_CUSTOMER, DeclaredLimit, is_one
from gatekeeper.rules.latches import mistake
from gatekeeper.rules.limits import (
    DOLLARS,
    REQUESTS,
    UNITS,
    CounterKey,
    Mode,
    Release,
    Scope,
    Scoped,
    StockLimit,
    Window,
    parts_of,
    scope_named,
    subjects_of,
)
from gatekeeper.rules.lines import Resets
from gatekeeper.rules.overlays import Family, Overlay, Snapshot, Standing, limit_id, overlaid, standing
from gatekeeper.rules.windows import DAY_MS, window_bounds

REFRESH_S = 0.5
# Each process keeps all of them, about a kilobyte each; customers beyond that have plans.
OVERLAYS_MAX = 10_000
RESETS_MAX = 10_000
# No window but the total is longer than a month (and its change of clocks).
_RESETS_KEPT_MS = 32 * DAY_MS
_RATES_MS = (1_000, 60_000, 3_600_000)
_ATTEMPTS = 10

_SUBJECT = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
_UNDER = re.compile(r"(?:[A-Za-z0-9._:@-]{1,128}/)?[A-Za-z0-9._:@-]{1,128}")
_MODEL = re.compile(r"[^\x00-\x1f*]{1,256}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REASON_LETTERS_MAX = 200

K = TypeVar("K", bound=StrEnum)
log = logging.getLogger("gatekeeper.overlays")


@dataclass(frozen=True, slots=True)
class Wish:
    """A limit that an operator wants: a stock limit of a ``window``, or a rate of ``per_ms``. None leaves it to what is
    declared on that row, else to the usual."""

    scope: str
    dimension: str
    cap: int | None
    subject: str = EACH
    window: str | None = None
    per_ms: int | None = None
    mode: str | None = None
    zone: str | None = None
    name: str | None = None
    release: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be another way; None stays. ``cap`` changes where ``new_cap`` is set, because None is unlimited."""

    new_cap: bool = False
    cap: int | None = None
    mode: str | None = None
    zone: str | None = None
    name: str | None = None
    release: str | None = None


class Limits:
    """One for a process. Every method that is asked wrongly raises Refusal, and Fault when the store fails."""

    def __init__(
        self, store: Store, declared: Callable[[], Gateway], apply: Callable[[Snapshot], None], clock: Clock
    ) -> None:
        self._store = store
        self._declared = declared
        self._apply = apply
        self._clock = clock
        self._snapshot = Snapshot(revision=-1)
        self._reading = asyncio.Lock()

    # --- keeping up ---

    async def run(self) -> None:
        """Look for changes of other processes for ever; while the ledger is away, what was known last stays."""
        while True:
            await self._clock.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Fault as fault:
                log.warning("limits may be out of date: %s", fault)
            except Exception:
                log.exception("limits could not be read again")

    async def refresh(self) -> None:
        """Read what was changed since the last time. Raises Fault; then nothing changes."""
        # One at a time: who read first must not have the last word.
        async with self._reading:
            if await self._store.limits_revision() == self._snapshot.revision:
                return
            found = await self._store.limits_snapshot(self._clock.now_ms() - _RESETS_KEPT_MS)
            self._apply(found)
            self._snapshot = found

    # --- looking ---

    @property
    def resets(self) -> Resets:
        """When counts were begun anew."""
        return self._snapshot.resets

    def standing(self) -> list[Standing]:
        """All limits that stand, in the order of pages."""
        gateway = self._declared()
        return standing(gateway.limits, gateway.rates, gateway.plans, self._snapshot.overlays)

    def find(self, name: str) -> Standing:
        """One limit by its id; where one only warns beside it, the other."""
        found = [each for each in self.standing() if each.id == name]
        if not found:
            raise Refusal(Code.NOT_FOUND, f"There is no limit {name[:40]!r}.", hint="the list of limits shows the ids")
        return min(found, key=lambda each: (each.overlay is None, _warns(each)))

    # --- changing ---

    async def create(self, wish: Wish, *, again: bool = False) -> Standing:
        """Set a limit where no operator has set one. ``again`` says that this may be a repetition of what was done:
        then the same limit, unchanged since, is the answer and no conflict."""
        await self.refresh()
        fresh = await self._overlay(wish)
        known = next((each for each in self._snapshot.overlays if each.id == fresh.id), None)
        if known is None:
            if len(self._snapshot.overlays) >= OVERLAYS_MAX:
                raise Refusal(Code.CONFLICT, f"There are {OVERLAYS_MAX} limits set by operators, which is the most.")
            if await self._store.add_overlay(fresh):
                await self.refresh()
                return self.find(fresh.id)
            await self.refresh()
            known = next((each for each in self._snapshot.overlays if each.id == fresh.id), None)
        if (
            known is not None
            and again
            and known == replace(fresh, created_ms=known.created_ms, updated_ms=known.updated_ms)
        ):
            return self.find(known.id)
        raise Refusal(Code.CONFLICT, "An operator has set this limit already.", hint=f"change it: {fresh.id}")

    async def vet(self, wish: Wish) -> None:
        """Raises Refusal for what ``create`` would refuse, but for a subject that is yet to be made."""
        await self.refresh()
        await self._overlay(wish, made=False)

    async def put(self, wish: Wish) -> Standing:
        """Set a limit, whether an operator has set it before or not; the last word counts."""
        await self.refresh()
        fresh = await self._overlay(wish)
        if not any(each.id == fresh.id for each in self._snapshot.overlays):
            return await self.create(wish)
        return await self.change(fresh.id, Change(True, wish.cap, wish.mode, wish.zone, wish.name, wish.release))

    async def change(self, name: str, change: Change, *, tag: str | None = None) -> Standing:
        """Change a limit, or lay an operator's over one that is declared. ``tag`` is the state that is meant; without
        it the last word counts."""
        # Without a tag, whoever comes between is overwritten; somebody does so this often only by mistake.
        for _ in range(_ATTEMPTS if tag is None else 1):
            await self.refresh()
            found = self.find(name)
            if found.plan_id is not None:
                raise Refusal(
                    Code.CONFLICT,
                    f"This is what plan {found.plan_id} sells to each customer.",
                    hint="to change it for one customer, create a limit with scope customer and that subject",
                )
            _check_tag(found, tag)
            overlay = _changed(found, change, self._clock.now_ms())
            self._check(overlay, own_name=change.name is not None)
            write = self._store.add_overlay if found.overlay is None else self._store.change_overlay
            if await write(overlay):
                await self.refresh()
                return self.find(name)
        await self.refresh()
        raise _stale()

    async def remove(self, name: str, *, tag: str | None = None) -> Standing | None:
        """Take an operator's limit away; returns what is declared in its place, or None."""
        await self.refresh()
        found = self.find(name)
        if found.overlay is None:
            where = f"plan {found.plan_id}" if found.plan_id else f"the {found.declared.origin}"
            hint = "change its cap to unlimited, or take it out of there"
            raise Refusal(Code.CONFLICT, f"This limit was set by no operator; it comes from {where}.", hint=hint)
        _check_tag(found, tag)
        done = await self._store.drop_overlay(found.overlay)
        await self.refresh()
        if not done:
            raise _stale()
        return next((each for each in self.standing() if each.id == name), None)

    async def reset(self, name: str, subject: str | None, reason: str) -> CounterKey:
        """Begin the count of one subject anew. What was used stays on record; calls in flight end where they began."""
        await self.refresh()
        found = self.find(name)
        limit = found.declared.limit
        if not isinstance(limit, StockLimit):
            raise Refusal(Code.BAD_REQUEST, "A rate limit drains by itself and cannot be reset.")
        if found.priced:
            raise Refusal(
                Code.CONFLICT,
                "Above this quota each unit has its price, so its count cannot begin anew: what is included would be "
                "given twice.",
                hint="to forgive a charge, credit it; to let a customer go on, raise the cap that stopped him",
            )
        if not reason.isprintable() or len(reason) > _REASON_LETTERS_MAX:
            raise Refusal(Code.BAD_REQUEST, f"reason is a printable text of at most {_REASON_LETTERS_MAX} letters.")
        mine = _subject_of(found, subject)
        await self._check_exists(limit.scope, mine)
        if len(self._snapshot.resets) >= RESETS_MAX:
            raise Refusal(Code.CONFLICT, f"{RESETS_MAX} counts were reset in the last month, which is the most.")
        key = CounterKey(limit.scope, mine, limit.dimension, limit.window, self._clock.now_ms())
        await self._store.add_reset(key, reason)
        await self.refresh()
        return key

    # --- what can be asked for ---

    async def _overlay(self, wish: Wish, *, made: bool = True) -> Overlay:
        scope = read_scope(wish.scope)
        subject = EACH if scope is Scope.GLOBAL and wish.subject in ("", "*") else wish.subject
        family, span = _span(wish)
        name = limit_id(family, scope, subject, wish.dimension, span)
        before = next((each for each in self.standing() if each.id == name and each.overlay is None), None)
        quota = await self._quota(scope, subject, wish.dimension, span)
        if quota is not None and wish.zone not in (None, quota.zone):
            raise Refusal(Code.BAD_REQUEST, f"It counts with the plan's quota, in the zone {quota.zone}.")
        limit = quota if before is None else before.declared.limit
        usual_mode = limit.mode if isinstance(limit, StockLimit) and limit.mode is not Mode.OVERAGE else Mode.BLOCK
        now_ms = self._clock.now_ms()
        overlay = Overlay(
            name,
            family,
            wish.name
            or (limit.name if before is not None and limit else _made_name(scope, subject, wish.dimension, span)),
            scope,
            subject,
            wish.dimension,
            span,
            wish.cap,
            Mode.BLOCK if family is Family.RATE else _mode(wish.mode) or usual_mode,
            wish.zone or (limit.zone if isinstance(limit, StockLimit) else "UTC"),
            now_ms,
            now_ms,
            release=_release(wish.release) or (limit.release if isinstance(limit, StockLimit) else Release.WINDOW),
        )
        self._check(overlay, own_name=wish.name is not None)
        if family is Family.RATE and (wish.mode or wish.zone or wish.release):
            raise Refusal(Code.BAD_REQUEST, "A rate limit has no mode, zone or release.")
        if subject != EACH and made:
            await self._check_exists(scope, subject)
        return overlay

    async def _quota(self, scope: Scoped, subject: str, dimension: str, span: str) -> StockLimit | None:
        """The quota of that customer's plan, where it counts the same."""
        if scope is not Scope.CUSTOMER or subject == EACH:
            return None
        customer = await self._store.customer(subject)
        plan = None if customer is None else self._declared().plans.get(customer.plan_id)
        quota = None if plan is None else plan.quota
        return quota if quota is not None and (quota.dimension, quota.window) == (dimension, span) else None

    def _check(self, overlay: Overlay, *, own_name: bool) -> None:
        """Raises Refusal for what no limit can be."""
        scope, subject = overlay.scope, overlay.subject
        if not _NAME.fullmatch(overlay.name) or overlay.name == "quota":
            raise Refusal(Code.BAD_REQUEST, "name is 1 to 64 letters, digits, '.', '_' or '-', and not 'quota'.")
        others = (each.declared.limit.name for each in self.standing() if each.id != overlay.id)
        if own_name and overlay.name in others:
            raise Refusal(Code.BAD_REQUEST, f"Another limit is named {overlay.name!r}.")
        if scope is Scope.GLOBAL and subject != EACH:
            raise Refusal(Code.BAD_REQUEST, "The scope global has no subjects.")
        if subject != EACH:
            check_subject(scope, subject)
        routes = self._declared().router.routes
        meters = {UNITS, REQUESTS, DOLLARS, *(f"{UNITS}:{meter}" for route in routes for meter in route.meters)}
        if overlay.dimension not in meters:
            raise Refusal(Code.BAD_REQUEST, f"dimension is one of {', '.join(sorted(meters))}.")
        if overlay.cap is not None and not 0 <= overlay.cap < 2**63:
            raise Refusal(Code.BAD_REQUEST, "cap does not fit 64 bits.")
        if overlay.family is Family.RATE and overlay.cap == 0:
            hint = "a limit of 0 in the window total shuts out"
            raise Refusal(Code.BAD_REQUEST, "A rate limit is a number above 0.", hint=hint)
        if overlay.family is Family.STOCK:
            window = Window(overlay.span)
            limit = StockLimit(overlay.name, scope, overlay.dimension, window, overlay.cap, overlay.mode)
            wrong = mistake(replace(limit, release=overlay.release))
            if wrong is not None:
                raise Refusal(Code.BAD_REQUEST, f"{wrong[0]}: {wrong[1]}.", hint=wrong[2])
        try:
            ZoneInfo(overlay.zone)
        except (ValueError, OSError, KeyError) as cause:
            raise Refusal(Code.BAD_REQUEST, f"{overlay.zone[:40]!r} is no known time zone.") from cause

    async def _check_exists(self, scope: Scoped, subject: str) -> None:
        """A limit on a name that is spelled wrongly would never count anything."""
        for part, one in zip(parts_of(scope), subjects_of(scope, subject), strict=True):
            if one != EACH:
                await self._check_one(part, one)

    async def _check_one(self, scope: Scope, subject: str) -> None:
        gateway = self._declared()
        exists = True
        if scope is Scope.PLAN:
            exists = subject in gateway.plans
        elif scope is Scope.ROUTE:
            exists = any(route.name == subject for route in gateway.router.routes)
        elif scope is Scope.KEY:
            exists = await self._store.key(subject) is not None
        elif scope is Scope.CUSTOMER or (scope in UNDER_CUSTOMER and "/" in subject):
            exists = await self._store.customer(subject.partition("/")[0]) is not None
        if not exists:
            what = Scope.CUSTOMER if scope in UNDER_CUSTOMER else scope
            raise Refusal(Code.BAD_REQUEST, f"There is no {what} {subject.partition('/')[0][:64]!r}.")

    async def customer_of(self, scope: Scoped, subject: str) -> Customer | None:
        """Whose plan and billing period a subject has; None where it is nobody's."""
        for part, one in zip(parts_of(scope), subjects_of(scope, subject), strict=False):
            if part is Scope.KEY:
                key = await self._store.key(one)
                return None if key is None else await self._store.customer(key.customer_id)
            if part is Scope.CUSTOMER or (part in UNDER_CUSTOMER and "/" in one):
                return await self._store.customer(one.partition("/")[0])
        return None


def applied(gateway: Gateway, snapshot: Snapshot) -> Gateway:
    """What is configured, with what operators did laid over it."""
    limits, rates = overlaid(gateway.limits, gateway.rates, snapshot.overlays)
    return replace(gateway, limits=limits, rates=rates, resets=snapshot.resets)


def window_of(limit: StockLimit, customer: Customer | None, now_ms: int) -> tuple[int, int | None] | None:
    """The present window; None for a billing period that is nobody's."""
    if limit.window is Window.BILLING_PERIOD and customer is None:
        return None
    return window_bounds(limit.window, now_ms, zone=limit.zone, anchor_ms=customer.anchor_ms if customer else None)


def _subject_of(found: Standing, subject: str | None) -> str:
    """The one subject whose count is meant."""
    mine, scope = found.declared.subject, found.scope
    if scope is Scope.GLOBAL:
        return "*"
    if not is_one(scope, mine):
        if not subject or not is_one(scope, subject):
            shape = whole_shape(scope)
            raise Refusal(Code.BAD_REQUEST, f"This limit counts each {scope}: subject must say which, as {shape}.")
        check_subject(scope, subject)
        return subject
    if subject not in (None, mine):
        raise Refusal(Code.BAD_REQUEST, f"This limit counts {mine!r} only.")
    return mine


def read_scope(text: str) -> Scoped:
    """A scope or a pair by its name. Raises Refusal."""
    try:
        return scope_named(text)
    except ValueError as cause:
        if "," in text:
            raise Refusal(Code.BAD_REQUEST, f"{text[:40]!r} is no pair of scopes.", hint=no_pair(text[:80])) from cause
        raise Refusal(
            Code.BAD_REQUEST, f"scope is one of {', '.join(Scope)}, or two of them, as in user,model."
        ) from cause


def whole_shape(scope: Scoped) -> str:
    """How a single subject of a scope is written."""
    return ",".join(f"customer/{part}" if part in UNDER_CUSTOMER else f"the {part}" for part in parts_of(scope))


def check_subject(scope: Scoped, subject: str) -> None:
    """Raises Refusal for what can be no subject of that scope."""
    parts, found = parts_of(scope), subjects_of(scope, subject)
    if len(found) != len(parts) or all(one == EACH for one in found):
        hint = 'both with a comma between them, one of which may be "each"; or "each"'
        raise Refusal(Code.BAD_REQUEST, f"The scope {scope} counts pairs.", hint=hint)
    for part, one in zip(parts, found, strict=True):
        shape = _UNDER if part in UNDER_CUSTOMER else _MODEL if part is Scope.MODEL else _SUBJECT
        if not shape.fullmatch(one):
            raise Refusal(Code.BAD_REQUEST, f"subject is no name of a {part}.")


def _span(wish: Wish) -> tuple[Family, str]:
    if (wish.window is None) == (wish.per_ms is None):
        raise Refusal(Code.BAD_REQUEST, "A limit has a window (a stock limit) or per_ms (a rate), and not both.")
    if wish.per_ms is not None:
        if wish.per_ms not in _RATES_MS:
            raise Refusal(Code.BAD_REQUEST, "per_ms is 1000, 60000 or 3600000.")
        return Family.RATE, str(wish.per_ms)
    return Family.STOCK, _one_of(Window, "window", wish.window or "")


def _one_of(kind: type[K], field: str, text: str) -> K:
    try:
        return kind(text)
    except ValueError as cause:
        raise Refusal(Code.BAD_REQUEST, f"{field} is one of {', '.join(kind)}.") from cause


def _release(text: str | None) -> Release | None:
    return None if text is None else _one_of(Release, "release", text)


def _mode(text: str | None) -> Mode | None:
    if text is None:
        return None
    if text == Mode.OVERAGE:
        hint = "an overage quota stands in a plan, beside its price"
        raise Refusal(Code.BAD_REQUEST, "Only a plan's quota goes on with overage.", hint=hint)
    if text not in set(LimitMode):
        raise Refusal(Code.BAD_REQUEST, f"mode is one of {', '.join(LimitMode)}.")
    return Mode(text)


def _changed(found: Standing, change: Change, now_ms: int) -> Overlay:
    before, limit = found.overlay, found.declared.limit
    stock = limit if isinstance(limit, StockLimit) else None
    if stock is None and (change.mode or change.zone or change.release):
        raise Refusal(Code.BAD_REQUEST, "A rate limit has no mode, zone or release.")
    if before is None:
        _, dimension, span = found.declared.row
        before = Overlay(
            found.id,
            found.family,
            limit.name,
            found.scope,
            found.declared.subject,
            dimension,
            str(span),
            found.cap,
            stock.mode if stock else Mode.BLOCK,
            stock.zone if stock else "UTC",
            now_ms,
            now_ms,
            release=stock.release if stock else Release.WINDOW,
        )
    return replace(
        before,
        name=change.name or before.name,
        cap=change.cap if change.new_cap else before.cap,
        mode=_mode(change.mode) or before.mode,
        zone=change.zone or before.zone,
        release=_release(change.release) or before.release,
        updated_ms=now_ms,
    )


def _check_tag(found: Standing, tag: str | None) -> None:
    if tag is not None and tag not in ("*", found.tag):
        raise _stale()


def _stale() -> Refusal:
    return Refusal(Code.CONFLICT, "The limit was changed in the meantime.", hint="read it again, then change that")


def _warns(found: Standing) -> bool:
    return isinstance(found.declared, DeclaredLimit) and found.declared.limit.mode is Mode.WARN


def _made_name(scope: Scoped, subject: str, dimension: str, span: str) -> str:
    """A name that no file gives by itself."""
    parts = ["admin", scope.value, *(() if subject == EACH else (subject,)), dimension, span]
    text = "".join(
        letter if (letter.isalnum() and letter.isascii()) or letter in "._-" else "-" for letter in "-".join(parts)
    )
    if len(text) <= 64:
        return text
    return f"{text[:55]}-{limit_id(Family.STOCK, scope, subject, dimension, span)[4:12]}"
