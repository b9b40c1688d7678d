"""What processes count of themselves, put together for pages."""

import pytest

from gatekeeper.tallies import Tallies
from gatekeeper.web.pages.processes import added_ms, at_most, open_calls, processes_of


def told(pid: int, *waits_s: float, alive: bool = True, generation: str = "g", calls: int = 0) -> dict[str, object]:
    """What a process says of itself, as JSON has it."""
    tallies = Tallies()
    for wait_s in waits_s:
        tallies.passed(wait_s / 2, wait_s / 2)
    figures = [[name, list(labels), value] for name, labels, value in tallies.figures()]
    figures.append(["open_calls", [], calls])
    return {"pid": pid, "alive": alive, "generation": generation, "loaded_ms": 1, "figures": figures}


def test_the_calls_of_all_processes_count():
    both = [told(1, *[0.0004] * 98), told(2, 0.009, 0.02)]
    assert added_ms(both, 50) == 0.5
    assert added_ms(both, 99) == 10
    assert added_ms(both, 100) == 25


def test_what_is_not_counted_apart_is_not_told():
    assert added_ms([told(1)], 50) is None
    assert added_ms([told(1, 60.0)], 50) is None
    assert added_ms([], 50) is None
    assert (at_most(None), at_most(0.5), at_most(250.0)) == ("–", "≤ 0.5 ms", "≤ 250 ms")


def test_only_who_lives_has_open_calls():
    all_of_them = [told(1, calls=2), told(2, calls=3), told(3, calls=5, alive=False)]
    assert open_calls(all_of_them) == 5


@pytest.mark.parametrize(("generation", "latest"), [("g", True), ("old", False)])
def test_a_process_with_another_configuration_is_seen(generation, latest):
    here, there = processes_of([told(1), told(2, generation=generation, calls=4)])
    assert here.has_latest and there.has_latest is latest
    assert (there.pid, there.open_calls, there.alive) == (2, 4, True)
