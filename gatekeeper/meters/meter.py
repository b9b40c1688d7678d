"""A compiled expression, and the one door through which every expression comes.

The rule: nobody else parses, checks or evaluates expressions.
"""

import hashlib
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any

from gatekeeper.diagnostics import Mistake, Mistakes, Severity, Source
from gatekeeper.meters.anchors import TooLarge
from gatekeeper.meters.check import Checker
from gatekeeper.meters.evidence import plain_json
from gatekeeper.meters.folds import FELL_BACK, GUESSED, READ, Marked, holds
from gatekeeper.meters.lower import TooManyClosures, lowered
from gatekeeper.meters.mending import mended
from gatekeeper.meters.names import Context
from gatekeeper.meters.parse import parse_most
from gatekeeper.meters.printing import printed
from gatekeeper.meters.reading import Mark, Outcome, Reading
from gatekeeper.meters.run import Code, Prices, RequestView, Run, Tokenizer
from gatekeeper.meters.scope import Facts
from gatekeeper.meters.seams import noted
from gatekeeper.meters.slots import SlotPlan
from gatekeeper.meters.tree import Name, Node
from gatekeeper.meters.values import EXACT, Unmeasurable, number
from gatekeeper.meters.warnings import warnings_of

if TYPE_CHECKING:
    from gatekeeper.meters.explaining import Outline

# A call of more units than this is a provider's mistake or ours; so is one of more dollars, which are stored as
# nano-dollars in 64 bits.
UNITS_MAX = Decimal(10**12)
DOLLARS_MAX = Decimal(10**9)
MICRO = Decimal("0.000001")
HASH_LETTERS = 16
_ERRED = "$upstream_error"
_SKIPPED = "$skipped"
_LOST = "$lost"
# So many slips of the pen are told at once; whoever makes more reads the grammar first.
_MENDS_MAX = 8
_READS_BODY = frozenset({"request", "requestBody"})


class Meter:
    """One expression, checked and compiled. Immutable; may be used by many calls at once."""

    __slots__ = (
        "_buffered",
        "_code",
        "_places",
        "_root",
        "context",
        "hash",
        "names",
        "needs_request",
        "plans",
        "text",
        "warnings",
    )

    text: str
    hash: str
    context: Context
    warnings: tuple[Mistake, ...]
    names: frozenset[str]
    needs_request: bool
    plans: tuple[SlotPlan, ...]

    def __init__(
        self, text: str, root: Node, code: Code, plans: tuple[SlotPlan, ...], places: int, context: Context,
        warnings: tuple[Mistake, ...], *, buffered: bool,
    ) -> None:  # fmt: skip
        self.text = text
        self.context = context
        self.warnings = warnings
        self.plans = plans
        self.hash = hashlib.sha256(printed(root).encode("utf-8", "replace")).hexdigest()[:HASH_LETTERS]
        # All that it names: what the language gives, and its own variables.
        self.names = frozenset(node.name for node in root.walk() if isinstance(node, Name))
        self.needs_request = bool(self.names & _READS_BODY)
        self._root = root
        self._buffered = buffered
        self._code = code
        self._places = places

    def __repr__(self) -> str:
        return f"Meter({self.text!r})"

    def run(
        self, view: RequestView, *, prices: Prices | None = None, tokenizer: Tokenizer | None = None,
        prefilter: bool = True, recorded: Mapping[str, Any] | None = None,
    ) -> Run:  # fmt: skip
        """A fresh evaluation. Its slots must be filled in by who feeds it (``Metering``)."""
        return Run(
            view, self._places, prices=prices, tokenizer=tokenizer, prefilter=prefilter, recorded=recorded
        )  # fmt: skip

    def evaluate(self, run: Run) -> Reading:
        """The reading of a run as it stands. Never raises: whatever goes wrong is a Reading with Mark.ERROR."""
        run.evidence = {_ERRED: True} if run.fallbacks_are_zero else {}
        try:
            return self._reading(run, self._code(run))
        except Unmeasurable as problem:
            return Reading(None, Mark.ERROR, str(problem), None, run.evidence)
        except Exception as problem:  # noqa: BLE001 - the seam of Law 3: a bug here must not end a stream
            return Reading(None, Mark.ERROR, f"internal: {noted(problem, self.text)}", None, run.evidence)

    def _reading(self, run: Run, marked: Marked) -> Reading:
        value, marks = marked
        if value is None:
            return Reading(None, Mark.NONE, None, None, run.evidence)
        mark = Mark.ESTIMATED if marks & GUESSED or self.context is Context.ESTIMATE else Mark.MEASURED
        if mark is Mark.MEASURED and marks & FELL_BACK:
            mark = Mark.DEFAULT
        if self.context is Context.WHEN:
            return Reading(Decimal(1 if holds(value) else 0), mark, None, None, run.evidence)
        if self.context in (Context.TRIAL, Context.VALUE):
            return _shown(value, mark, run.evidence)
        shown: Mapping[str, Any] | None = None
        if isinstance(value, dict):
            shown = plain_json(value)
            if "total" not in value:
                raise Unmeasurable("a map is no number; name a field")
            if value["total"] is None:
                return Reading(None, Mark.NONE, None, shown, run.evidence)
            value = value["total"]
        units_found = _dollars(value) if self.context is Context.COST else _units(value)
        if run.fallbacks_are_zero and not marks & READ:
            # A flat price is a fallback too once the provider has failed.
            return Reading(Decimal(0), Mark.DEFAULT, str(Outcome.UPSTREAM_ERROR), shown, run.evidence)
        note = str(Outcome.UPSTREAM_ERROR) if run.fallbacks_are_zero and mark is Mark.DEFAULT else None
        return Reading(units_found, mark, note, shown, run.evidence)

    def evaluate_request(
        self, view: RequestView, *, prices: Prices | None = None, tokenizer: Tokenizer | None = None
    ) -> Reading:
        """The reading before the call: contexts ESTIMATE, WHEN (1 or 0; null is 0) and VALUE. Never raises."""
        reading = self.evaluate(self.run(view, prices=prices, tokenizer=tokenizer))
        if self.context is Context.WHEN and reading.source is Mark.NONE:
            return Reading(Decimal(0), Mark.MEASURED, None, None, reading.evidence)
        return reading

    def evaluate_value(self, view: RequestView, *, tokenizer: Tokenizer | None = None) -> Any:
        """Context VALUE: the value itself, as JSON types (fractions as Decimal); null where it cannot be had."""
        try:
            return self._code(self.run(view, tokenizer=tokenizer))[0]
        except Unmeasurable:
            return None
        except Exception as problem:  # noqa: BLE001 - the same seam
            noted(problem, self.text)
            return None

    def replay(self, evidence: Mapping[str, Any]) -> Reading:
        """Evaluates stored evidence again: the same digits, source and note as when it was stored."""
        if _SKIPPED in evidence:
            return skipped(str(evidence[_SKIPPED]))
        if _LOST in evidence:
            return lost(str(evidence[_LOST]))
        run = self.run(RequestView(), recorded=evidence)
        run.fallbacks_are_zero = bool(evidence.get(_ERRED))
        reading = self.evaluate(run)
        return Reading(reading.units, reading.source, reading.note, reading.value, dict(evidence))

    def explain(self, seen: Sequence[Any] = ()) -> str:
        """For people: the tree with phases and types, the slots, and what each saw (``watching.Watching.seen``)."""
        from gatekeeper.meters.explaining import explained  # it knows what watches meters

        return explained(self._root, self._facts(), self.plans, self.context, self.hash, seen)

    def outline(self) -> "Outline":
        """For machines: canonical text, type, phases and slots."""
        from gatekeeper.meters.explaining import outlined

        return outlined(self._root, self._facts(), self.plans, self.hash)

    def _facts(self) -> Facts:
        checker = Checker(Source(self.text), self.context, buffered=self._buffered)
        checker.run(self._root)
        return checker.facts


def _shown(value: Any, mark: Mark, evidence: Mapping[str, Any]) -> Reading:
    """Any value at all, with the units where it can be billed."""
    total = value.get("total") if isinstance(value, dict) else value
    units = None
    if isinstance(total, int | Decimal) and not isinstance(total, bool) and 0 <= total <= UNITS_MAX:
        units = _units(total)
    shown = plain_json(value) if isinstance(value, dict) else {"value": plain_json(value)}
    return Reading(units, mark, None, shown, evidence)


def _units(value: object) -> Decimal:
    """Rounded once, to millionths."""
    if type(value) is int and 0 <= value <= UNITS_MAX:
        return Decimal(value)
    units = number(value)
    if units < 0:
        raise Unmeasurable("the result is negative")
    if units > UNITS_MAX:
        raise Unmeasurable("the result is larger than 10^12 units")
    made = EXACT.normalize(units.quantize(MICRO, rounding=ROUND_HALF_EVEN, context=EXACT))
    return made.quantize(Decimal(1), context=EXACT) if made == made.to_integral_value() else made


def _dollars(value: object) -> Decimal:
    """Exact: money is rounded once, where it becomes nano-dollars."""
    dollars = number(value)
    if dollars < 0:
        raise Unmeasurable("the result is negative")
    if dollars > DOLLARS_MAX:
        raise Unmeasurable("the result is more than 10^9 dollars")
    return dollars


def lost(why: str) -> Reading:
    """The reading where what the slots saw is not the whole answer, or where we failed."""
    return Reading(None, Mark.ERROR, why, None, {_LOST: why})


def skipped(why: str) -> Reading:
    """The reading of a call for which meters do not run: 0 units, source ``none``, and why."""
    return Reading(Decimal(0), Mark.NONE, why, None, {_SKIPPED: why})


def check_expression(
    text: str,
    *,
    context: Context = Context.METER,
    source: Source | None = None,
    buffer_bytes_max: int = 0,
    dialect: str | None = None,
) -> tuple[Meter | None, tuple[Mistake, ...]]:
    """Reads, checks and compiles. All mistakes and warnings, in reading order; the Meter is None if one is an error.

    Spans point into ``source``: the text itself (by default ``<expression>``) or an outer text that holds it.
    ``dialect`` (``openai``, ``anthropic``, ``gemini``, ``xai``, ``watsonx``, ...) is what the route's provider speaks:
    some warnings need it. Never raises.
    """
    own = Source(text, source.name if source is not None else "<expression>")
    meter, mistakes = _checked(own, context, buffer_bytes_max, dialect)
    at = -1 if source is None or source.text == text else source.text.find(text)
    if source is None or at < 0:
        return meter, mistakes
    return meter, tuple(mistake.moved(source, at) for mistake in mistakes)


def _checked(
    source: Source, context: Context, buffer_bytes_max: int, dialect: str | None, mends: int = _MENDS_MAX
) -> tuple[Meter | None, tuple[Mistake, ...]]:
    root, written = parse_most(source)
    if root is None:
        behind = mended(written[0]) if mends else None
        if behind is not None:
            _, more = _checked(behind.source, context, buffer_bytes_max, dialect, mends - 1)
            written += behind.back(more)
        return None, tuple(sorted(written, key=_in_reading_order))
    checker = Checker(source, context, buffered=buffer_bytes_max > 0)
    checker.run(root)
    if written:
        # What overlaps a slip may be its consequence.
        errors = (one for one in checker.mistakes if one.severity is Severity.ERROR and _apart(one, written))
        return None, tuple(sorted((*written, *errors), key=_in_reading_order))
    refused = any(mistake.severity is Severity.ERROR for mistake in checker.mistakes)
    more = () if refused else warnings_of(root, checker.facts, source, context, dialect)
    found = tuple(sorted((*checker.mistakes, *more), key=_in_reading_order))
    if refused:
        return None, found
    try:
        code, plans, places = lowered(root, checker.facts, buffer_bytes_max=buffer_bytes_max)
    except (TooLarge, TooManyClosures):
        message = "the expression grows too large when its variables are put in"
        return None, (*found, Mistake(message, source, root.span, "use fewer variables that stand for one another"))
    return Meter(source.text, root, code, plans, places, context, found, buffered=buffer_bytes_max > 0), found


def _apart(mistake: Mistake, others: tuple[Mistake, ...]) -> bool:
    span = mistake.span
    return all(span.end <= other.span.start or other.span.end <= span.start for other in others)


def _in_reading_order(mistake: Mistake) -> tuple[int, int]:
    return mistake.span.start, mistake.span.end


def compile_meter(
    text: str,
    *,
    context: Context = Context.METER,
    source: Source | None = None,
    buffer_bytes_max: int = 0,
    dialect: str | None = None,
) -> Meter:
    """The Meter of an expression. Raises ``diagnostics.Mistakes`` with every error."""
    meter, mistakes = check_expression(
        text, context=context, source=source, buffer_bytes_max=buffer_bytes_max, dialect=dialect
    )
    if meter is None:
        raise Mistakes(mistake for mistake in mistakes if mistake.severity is Severity.ERROR)
    return meter
