"""Looking for a response on which a judge complains, and making it as small as it goes.

The rule: the same seed finds the same; what was found before is not remembered.
"""

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.strategies import SearchStrategy

from gatekeeper.testing.judging import Complaint, Judge
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import chunkings


class _Wrong(Exception):
    """Tells hypothesis that the judge complained."""


class _TimeIsUp(BaseException):
    """Not an Exception, so that hypothesis does not take it for a failure and shrink it."""


def find_complaint(
    streams: SearchStrategy[ProviderStream],
    judge: Judge,
    *,
    examples: int,
    seed_number: int,
    stop: Callable[[], bool] | None = None,
) -> Complaint | None:
    """The smallest complaint found in so many examples, or None. ``stop`` is asked before every example; once it says
    True the smallest complaint until then is the answer. Whatever the judge raises comes out."""
    found: list[Complaint] = []

    def look(stream: ProviderStream, sizes: tuple[int, ...]) -> None:
        if stop is not None and stop():
            raise _TimeIsUp
        complaint = judge(stream, sizes)
        if complaint is not None:
            found.append(complaint)
            raise _Wrong

    quiet = settings(
        max_examples=examples, database=None, deadline=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False, print_blob=False,
        verbosity=Verbosity.quiet,
    )  # fmt: skip
    try:
        seed(seed_number)(quiet(given(streams, chunkings())(look)))()
    except _Wrong:
        # hypothesis ends with the smallest one.
        return found[-1]
    except _TimeIsUp:
        return min(found, key=lambda complaint: len(complaint.stream.bytes), default=None)
    return None
