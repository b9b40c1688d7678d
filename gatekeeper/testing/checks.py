"""One line in an author's test suite: is this meter right on everything that these providers send?

The rule: what fails is shown as small as it goes, for people, and can be replayed by ``gatekeeper meter``.
"""

from pathlib import Path

from hypothesis.strategies import SearchStrategy

from gatekeeper.meters import Meter, RequestView, compile_meter
from gatekeeper.testing.judging import Asked, Judge, Reads, judge_chunking, judge_defaults, judge_figure
from gatekeeper.testing.search import find_complaint
from gatekeeper.testing.stream import ProviderStream

_EXAMPLES = 200


def assert_meters(
    expression_or_meter: str | Meter,
    streams: SearchStrategy[ProviderStream],
    *,
    reads: Reads = "total",
    examples: int = _EXAMPLES,
    seed: int | None = None,
    request: RequestView | None = None,
    save_to: str | Path | None = None,
) -> None:
    """The meter reads what the responses say.

    ``reads``: a count of the usage record (``"total"``, ``"output"``, ...), ``"usage"`` for all of it, or a function of
    the record that gives the units (counts that the response does not say are None there; arithmetic with None means
    that the figure is unknown). Where the response says it, the reading must be that figure and ``measured``; where it
    does not, anything but ``measured`` and ``error`` is right.

    The same ``seed`` tries the same responses; None is 0, so that what is red in CI is red at your desk.
    Raises AssertionError with the smallest counter-example, written to the file ``save_to`` if that is given (the
    suffix follows from its content type); ``diagnostics.Mistakes`` if the expression is wrong.
    """
    meter = _meter(expression_or_meter)
    judge = judge_figure(meter, reads, _asked(request))
    _assert(judge, streams, "the meter is wrong", examples, seed, save_to)


def assert_chunking_law(
    expression_or_meter: str | Meter,
    streams: SearchStrategy[ProviderStream],
    *,
    examples: int = _EXAMPLES,
    seed: int | None = None,
    request: RequestView | None = None,
    save_to: str | Path | None = None,
) -> None:
    """The reading is the same however the bytes were cut. Raises as ``assert_meters``."""
    judge = judge_chunking(_meter(expression_or_meter), _asked(request))
    _assert(judge, streams, "the reading depends on how the bytes were cut", examples, seed, save_to)


def assert_never_defaults(
    expression_or_meter: str | Meter,
    streams: SearchStrategy[ProviderStream],
    *,
    examples: int = _EXAMPLES,
    seed: int | None = None,
    request: RequestView | None = None,
    save_to: str | Path | None = None,
) -> None:
    """Where a response says its total, the reading is ``measured``: no fallback, nothing, no error. Raises as
    ``assert_meters``."""
    judge = judge_defaults(_meter(expression_or_meter), _asked(request))
    _assert(judge, streams, "the meter falls back although the response has usage", examples, seed, save_to)


def _meter(expression_or_meter: str | Meter) -> Meter:
    return compile_meter(expression_or_meter) if isinstance(expression_or_meter, str) else expression_or_meter


def _asked(request: RequestView | None) -> Asked:
    return Asked(request or RequestView())


def _assert(
    judge: Judge,
    streams: SearchStrategy[ProviderStream],
    wrong: str,
    examples: int,
    seed: int | None,
    save_to: str | Path | None,
) -> None:
    complaint = find_complaint(streams, judge, examples=examples, seed_number=seed or 0)
    if complaint is None:
        return
    file = None if save_to is None else complaint.stream.save(Path(save_to))
    raise AssertionError(f"{wrong}\n{complaint.render(file)}")
