"""What the firewall answers: plain values for people who write agents, in whole units and dollars."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from gatekeeper.errors import LimitState, Refusal
from gatekeeper.money import amount_text, micro_to_units, nano_to_dollars
from gatekeeper.ports import UsageRecord


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit that said no. Amounts are in the dimension: tokens (``units``), requests or dollars."""

    name: str
    scope: str
    dimension: str
    window: str
    cap: Decimal
    used: Decimal
    held: Decimal
    remaining: Decimal
    resets_at: datetime | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a call may be made. ``reason`` is the code of the refusal (as the proxy's error body has it),
    ``message`` a sentence for people, ``retry_after`` seconds where only time helps."""

    allowed: bool
    reason: str | None = None
    message: str | None = None
    limit: Limit | None = None
    retry_after: int | None = None


class Answered:
    """What both verdicts, with asyncio and without, say of their answer."""

    def __init__(self, answer: Answer, call_id: str | None) -> None:
        self._answer = answer
        self._call_id = call_id

    @property
    def allowed(self) -> bool:
        """Whether the call may be made."""
        return self._answer.allowed

    @property
    def reason(self) -> str | None:
        """Why not: a code from the README's table, such as ``budget_exceeded``."""
        return self._answer.reason

    @property
    def message(self) -> str | None:
        """Why not, as a sentence."""
        return self._answer.message

    @property
    def limit(self) -> Limit | None:
        """The limit that said no."""
        return self._answer.limit

    @property
    def retry_after(self) -> int | None:
        """Seconds after which asking again can succeed; None where time does not help."""
        return self._answer.retry_after

    @property
    def call_id(self) -> str | None:
        """The id of the record (``gatekeeper explain ID``); None where the call is not allowed."""
        return self._call_id


@dataclass(frozen=True, slots=True)
class Charged:
    """How a call is on record: tokens (or other units), the customer's charge and the provider's price in dollars.

    ``source`` is how the units are known: measured, default, estimated, none or error. ``first`` is False where the
    call was settled before: then this is what was recorded.
    """

    units: Decimal
    charge: Decimal
    cost: Decimal | None
    source: str
    first: bool


def answer_of(refusal: Refusal) -> Answer:
    """A refusal as a value."""
    hint = f" ({refusal.hint})" if refusal.hint else ""
    limit = None if refusal.limit is None else limit_of(refusal.limit)
    return Answer(False, refusal.code.value, refusal.public + hint, limit, refusal.retry_after_s)


def limit_of(state: LimitState) -> Limit:
    """A limit's figures in whole units and dollars."""

    def shown(amount: int) -> Decimal:
        return Decimal(amount_text(state.dimension, amount))

    resets = state.resets_ms
    return Limit(
        name=state.name,
        scope=state.scope,
        dimension=state.dimension,
        window=state.window,
        cap=shown(state.cap or 0),
        used=shown(state.used),
        held=shown(state.held),
        remaining=shown(state.remaining or 0),
        resets_at=None if resets is None else datetime.fromtimestamp(resets / 1000, UTC),
    )


def charged_of(record: UsageRecord, *, first: bool) -> Charged:
    """A stored record as a value."""
    return Charged(
        units=micro_to_units(record.units_micro),
        charge=nano_to_dollars(record.charge_nano),
        cost=None if record.cost_nano is None else nano_to_dollars(record.cost_nano),
        source=record.source.value,
        first=first,
    )
