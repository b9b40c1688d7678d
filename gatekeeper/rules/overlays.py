"""Limits as an operator set them while the gateway runs, laid over what is declared. Pure: values in, values out.

The rule: an overlay beats what is declared for the same scope, subject, dimension and span, and nothing else; without
it the declared limit stands again. A declared limit that only warns is no rival of an overlay that blocks: both count.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from gatekeeper.money import MICRO_PER_UNIT
from gatekeeper.rules.declared import (
    EACH,
    DeclaredLimit,
    DeclaredRate,
    Origin,
    Row,
    indexed,
    of_plan,
    rank,
    rates_of_plan,
)
from gatekeeper.rules.limits import Mode, RateLimit, Release, Scoped, StockLimit, Window
from gatekeeper.rules.lines import NO_RESETS, Resets
from gatekeeper.rules.plans import Plan


class Family(StrEnum):
    """STOCK counts over a window and holds; RATE is a leaky bucket."""

    STOCK = "stock"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Overlay:
    """One limit as an operator set it. ``span`` is a window, or the milliseconds of a rate as text; ``cap`` None is
    unlimited. ``version`` counts the changes since ``created_ms``."""

    id: str
    family: Family
    name: str
    scope: Scoped
    subject: str
    dimension: str
    span: str
    cap: int | None
    mode: Mode
    zone: str
    created_ms: int
    updated_ms: int
    version: int = 1
    release: Release = Release.WINDOW

    @property
    def tag(self) -> str:
        """Tells this state from every other one that a limit of this id has had: an overlay that is made again counts
        its versions anew."""
        return f"{self.created_ms:x}-{self.version}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All overlays and the resets that still matter, as they stood together. ``revision`` counts the changes."""

    revision: int = 0
    overlays: tuple[Overlay, ...] = ()
    resets: Resets = field(default_factory=lambda: NO_RESETS)


def limit_id(family: Family, scope: str, subject: str, dimension: str, span: str, plan_id: str = "") -> str:
    """The id of a limit, made of what it counts: it is the same before, under and after an overlay, and in every
    process. What plans say of the same row is told apart by ``plan_id``."""
    text = "\n".join((family, scope, subject, dimension, span, plan_id))
    return "lim_" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Standing:
    """A limit that stands, with where it comes from. ``beaten`` is the declared one that an overlay has taken the place
    of; ``plan_id`` is set for what a plan says (``quota`` for its quota), ``overlay`` for what an operator said."""

    id: str
    declared: DeclaredLimit | DeclaredRate
    overlay: Overlay | None = None
    beaten: DeclaredLimit | DeclaredRate | None = None
    plan_id: str | None = None
    quota: bool = False

    @property
    def priced(self) -> bool:
        """Whether it is a quota above which each unit has its price."""
        return isinstance(self.declared, DeclaredLimit) and self.declared.limit.mode is Mode.OVERAGE

    @property
    def family(self) -> Family:
        """Stock or rate."""
        return Family.STOCK if isinstance(self.declared, DeclaredLimit) else Family.RATE

    @property
    def tag(self) -> str:
        """What an If-Match must name; a limit that no operator has touched has one too."""
        return "0-0" if self.overlay is None else self.overlay.tag

    @property
    def scope(self) -> Scoped:
        """Whose use it counts."""
        return self.declared.limit.scope

    @property
    def cap(self) -> int | None:
        """None is unlimited."""
        if isinstance(self.declared, DeclaredRate) and self.declared.exempt:
            return None
        return self.declared.limit.cap


D = TypeVar("D", DeclaredLimit, DeclaredRate)


def overlaid(
    limits: Iterable[DeclaredLimit], rates: Iterable[DeclaredRate], overlays: Sequence[Overlay]
) -> tuple[tuple[DeclaredLimit, ...], tuple[DeclaredRate, ...]]:
    """The limits and rates that hold: each overlay in the place of what it beats, at the end where it beats nothing."""
    stock = _laid(limits, _of(Family.STOCK, overlays))
    rate = _laid(rates, _of(Family.RATE, overlays))
    return (
        indexed(each.declared for each in stock if isinstance(each.declared, DeclaredLimit)),
        indexed(each.declared for each in rate if isinstance(each.declared, DeclaredRate)),
    )


def standing(
    limits: Iterable[DeclaredLimit],
    rates: Iterable[DeclaredRate],
    plans: Mapping[str, Plan],
    overlays: Sequence[Overlay],
) -> list[Standing]:
    """All that stands: what plans say, then what is declared or laid over it. Sorted by scope, subject, what is counted
    and id, so that a page can follow a page."""
    found: list[Standing] = []
    for plan_id, plan in plans.items():
        if plan.quota is not None:
            bought = DeclaredLimit(plan.quota, origin=Origin.PLAN)
            found.append(Standing(id_of(bought, plan_id), bought, plan_id=plan_id, quota=True))
        found += [Standing(id_of(each, plan_id), each, plan_id=plan_id) for each in of_plan(plan)]
        found += [Standing(id_of(each, plan_id), each, plan_id=plan_id) for each in rates_of_plan(plan)]
    found += _laid(limits, _of(Family.STOCK, overlays))
    found += _laid(rates, _of(Family.RATE, overlays))
    return sorted(found, key=_order)


def id_of(each: DeclaredLimit | DeclaredRate, plan_id: str = "") -> str:
    """``limit_id`` of a limit as declared."""
    family = Family.STOCK if isinstance(each, DeclaredLimit) else Family.RATE
    scope, dimension, span = each.row
    return limit_id(family, scope, each.subject, dimension, str(span), plan_id)


def holding_for(found: Iterable[Standing], subject: str, plan_id: str | None) -> list[Standing]:
    """Of limits of one scope those that a call of ``subject``, who is on the plan ``plan_id``, meets: as
    ``declared.applying`` finds them."""
    mine = [each for each in found if each.plan_id in (None, plan_id)]
    ranked = [(rank(each.declared, subject), each) for each in mine if not each.quota]
    best: dict[tuple[Family, Row], int] = {}
    for exact, each in ranked:
        row = (each.family, each.declared.row)
        best[row] = max(exact, best.get(row, 1))
    kept = [each for exact, each in ranked if exact == best[(each.family, each.declared.row)]]
    capped = {each.declared.row for each in kept if each.overlay is not None and each.declared.subject != EACH}
    quotas = [each for each in mine if each.quota and (each.priced or each.declared.row not in capped)]
    return [*quotas, *kept]


def _of(family: Family, overlays: Iterable[Overlay]) -> list[Overlay]:
    return [each for each in overlays if each.family is family]


def _order(found: Standing) -> tuple[str, ...]:
    scope, dimension, span = found.declared.row
    return scope, found.declared.subject, dimension, str(span), found.plan_id or "", found.id


def _laid(declared: Iterable[D], overlays: Iterable[Overlay]) -> list[Standing]:
    waiting = {each.id: each for each in overlays}
    placed: set[str] = set()
    found: list[Standing] = []
    for each in declared:
        name = id_of(each)
        overlay = waiting.get(name)
        if overlay is None or (_only_warns(each) and overlay.mode is not Mode.WARN):
            found.append(Standing(name, each))
        elif name not in placed:
            # Of several on one row the first gives its place; all are beaten.
            placed.add(name)
            found.append(Standing(name, _as_declared(overlay, each), overlay, each))
    found += [Standing(each.id, _as_declared(each, None), each) for each in waiting.values() if each.id not in placed]
    return found


def _only_warns(each: DeclaredLimit | DeclaredRate) -> bool:
    return isinstance(each, DeclaredLimit) and each.limit.mode is Mode.WARN


def _as_declared(overlay: Overlay, before: DeclaredLimit | DeclaredRate | None) -> DeclaredLimit | DeclaredRate:
    """What holds for an overlay; what it does not say (a soft limit's mark, say) stays as it is declared."""
    if overlay.family is Family.RATE:
        cap = overlay.cap or MICRO_PER_UNIT
        rate = RateLimit(overlay.name, overlay.scope, overlay.dimension, cap, int(overlay.span))
        return DeclaredRate(rate, overlay.subject, exempt=not overlay.cap, origin=Origin.ADMIN)
    if isinstance(before, DeclaredLimit):
        limit = replace(before.limit, name=overlay.name, cap=overlay.cap, mode=overlay.mode, zone=overlay.zone)
        limit = replace(limit, release=overlay.release)
    else:
        limit = StockLimit(
            overlay.name,
            overlay.scope,
            overlay.dimension,
            Window(overlay.span),
            overlay.cap,
            overlay.mode,
            overlay.zone,
            release=overlay.release,
        )
    return DeclaredLimit(limit, overlay.subject, origin=Origin.ADMIN)
