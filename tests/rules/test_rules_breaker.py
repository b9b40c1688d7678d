"""The circuit breaker as a machine: every way through it, and its laws under any sequence of calls."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gatekeeper.rules.breaker import Breaker, BreakerConfig, Phase, is_failure

FEW = BreakerConfig(failures=3, percent=50, window_s=10, pause_s=5)


def fails(breaker: Breaker, times: int, now_s: float = 0.0) -> None:
    for _ in range(times):
        ticket = breaker.enter(now_s)
        assert ticket is not None
        breaker.failed(ticket, now_s)


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker(FEW)
    fails(breaker, 3, now_s)
    assert breaker.phase is Phase.OPEN
    return breaker


def test_it_opens_at_so_many_failures_and_lets_nobody_in():
    breaker = Breaker(FEW)
    fails(breaker, 2)
    assert breaker.phase is Phase.CLOSED
    fails(breaker, 1)
    assert breaker.phase is Phase.OPEN
    assert breaker.enter(4.99) is None
    assert breaker.wait_s(1.0) == 4.0


def test_a_few_failures_among_many_calls_do_not_open_it():
    breaker = Breaker(FEW)
    for _ in range(100):
        breaker.succeeded(breaker.enter(0.0), 0.0)
    fails(breaker, 99)
    assert breaker.phase is Phase.CLOSED
    fails(breaker, 1)
    assert breaker.phase is Phase.OPEN, "half of the calls is what was declared"


def test_failures_that_left_the_window_do_not_count():
    breaker = Breaker(FEW)
    fails(breaker, 2, 0.0)
    fails(breaker, 2, 11.0)
    assert breaker.phase is Phase.CLOSED


def test_after_the_pause_one_probe_goes_and_closes_it():
    breaker = opened()
    probe = breaker.enter(5.0)
    assert (probe is not None, breaker.phase) == (True, Phase.HALF_OPEN)
    assert breaker.enter(5.0) is None
    breaker.succeeded(probe, 6.0)
    assert breaker.phase is Phase.CLOSED
    fails(breaker, 2, 6.0)
    assert breaker.phase is Phase.CLOSED, "what was counted before is forgotten"


def test_a_probe_that_fails_opens_it_for_another_pause():
    breaker = opened()
    breaker.failed(breaker.enter(5.0), 7.0)
    assert breaker.phase is Phase.OPEN
    assert breaker.enter(11.9) is None
    assert breaker.enter(12.0) is not None


def test_a_probe_whose_caller_hung_up_gives_its_place_to_the_next():
    breaker = opened()
    breaker.left(breaker.enter(5.0))
    assert breaker.enter(5.0) is not None


def test_a_probe_that_is_silent_does_not_keep_everybody_out_for_ever():
    breaker = opened()
    slow = breaker.enter(5.0)
    assert breaker.enter(9.9) is None
    second = breaker.enter(10.0)
    assert second is not None
    breaker.left(slow)
    assert breaker.enter(10.1) is None, "the second one is still out"
    breaker.succeeded(slow, 10.2)
    assert breaker.phase is Phase.CLOSED, "a late answer is an answer"


def test_what_began_before_it_opened_decides_nothing_afterwards():
    breaker = Breaker(FEW)
    old = breaker.enter(0.0)
    fails(breaker, 3)
    probe = breaker.enter(5.0)
    breaker.succeeded(old, 5.1)
    assert breaker.phase is Phase.HALF_OPEN
    breaker.failed(old, 5.1)
    assert breaker.phase is Phase.HALF_OPEN
    breaker.succeeded(probe, 5.2)
    breaker.failed(old, 5.3)
    assert breaker.phase is Phase.CLOSED


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_these_answers_are_failures(status):
    assert is_failure(status)


def test_other_answers_are_not():
    assert [status for status in range(200, 500) if is_failure(status)] == [408, 429]


class Upstream(RuleBasedStateMachine):
    """Calls come, end and are left in any order while time passes; a simple account of it says what must be."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(FEW)
        self.now_s = 0.0
        self.open: list[tuple[int, Phase]] = []
        self.opened_s = 0.0
        # Since it closed: when each call ended, and whether it failed.
        self.told: list[tuple[float, bool]] = []

    @rule(wait_s=st.sampled_from([0.0, 0.25, 1.0, 4.0, 6.0]))
    def time_passes(self, wait_s: float) -> None:
        self.now_s += wait_s

    @rule()
    def call(self) -> None:
        before = self.breaker.phase
        probes = [ticket for ticket, phase in self.open if phase is Phase.HALF_OPEN]
        ticket = self.breaker.enter(self.now_s)
        if before is Phase.CLOSED:
            assert ticket is not None
        elif before is Phase.OPEN:
            assert (ticket is not None) == (self.now_s >= self.opened_s + FEW.pause_s)
        elif not probes:
            assert ticket is not None
        if ticket is not None:
            if before is Phase.OPEN:
                self.open = [(each, Phase.OPEN) for each, _ in self.open]
            self.open.append((ticket, self.breaker.phase))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "left"]))
    def end(self, data: st.DataObject, how: str) -> None:
        ticket, phase = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        before = self.breaker.phase
        if how == "left":
            self.breaker.left(ticket)
            assert self.breaker.phase is before
            return
        getattr(self.breaker, how)(ticket, self.now_s)
        after = self.breaker.phase
        if phase is not before or before is Phase.OPEN:
            assert after is before, "it began in another phase"
        elif before is Phase.HALF_OPEN:
            assert after is (Phase.CLOSED if how == "succeeded" else Phase.OPEN)
        elif before is Phase.CLOSED:
            self.told.append((self.now_s, how == "failed"))
            sure = [failed for at_s, failed in self.told if at_s > self.now_s - 0.9 * FEW.window_s]
            may = [failed for at_s, failed in self.told if at_s > self.now_s - FEW.window_s]
            if after is Phase.OPEN:
                assert sum(may) >= FEW.failures
            if how == "failed" and len(sure) == len(may) and sum(sure) >= FEW.failures and 2 * sum(sure) >= len(sure):
                assert after is Phase.OPEN
        if after is not before:
            self.told.clear()
            self.open = [(each, Phase.OPEN) for each, _ in self.open]
            if after is Phase.OPEN:
                self.opened_s = self.now_s

    @invariant()
    def the_wait_is_never_longer_than_the_pause(self) -> None:
        assert 0 <= self.breaker.wait_s(self.now_s) <= FEW.pause_s


TestUpstream = Upstream.TestCase
