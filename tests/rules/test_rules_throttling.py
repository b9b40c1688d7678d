"""How often somebody may try: free ones, doubling, the longest, and what is forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.throttling import FIRST_CLOSED_MS, LONGEST_CLOSED_MS, WINDOW_MS, Door

NOW_MS = 1_800_000_000_000


def test_the_door_closes_for_twice_as_long_each_time():
    door, now_ms, waits = Door(), NOW_MS, []
    for _ in range(16):
        door = door.tried(5, now_ms)
        waits.append(max(0, door.closed_ms - now_ms))
        now_ms = max(now_ms, door.closed_ms)
    assert waits[:8] == [0, 0, 0, 0, *(FIRST_CLOSED_MS * factor for factor in (1, 2, 4, 8))]
    assert waits[-1] == LONGEST_CLOSED_MS
    assert door.opens_ms(now_ms) == 0
    assert door.opens_ms(now_ms - 1) == now_ms


def test_an_hour_of_peace_forgets_and_an_hour_of_tries_does_not():
    door = Door()
    for number in range(4):
        door = door.tried(5, NOW_MS + number)
    assert door.tried(5, NOW_MS + WINDOW_MS) == Door(1, NOW_MS + WINDOW_MS, 0)
    door = door.tried(5, NOW_MS + 4)
    assert door.tried(5, door.closed_ms).count == 6
    assert door.tried(5, NOW_MS + WINDOW_MS).count == 6
    assert door.tried(5, door.closed_ms + WINDOW_MS).count == 1


@given(st.integers(1, 100), st.lists(st.integers(0, 2 * LONGEST_CLOSED_MS), max_size=200))
def test_whoever_waits_as_told_has_few_tries_an_hour_however_he_spaces_them(free, waits):
    door, now_ms, tries = Door(), NOW_MS, []
    for wait_ms in waits:
        now_ms = max(now_ms + wait_ms, door.opens_ms(now_ms))
        door = door.tried(free, now_ms)
        tries.append(now_ms)
        assert 0 <= door.closed_ms - now_ms <= LONGEST_CLOSED_MS or door.closed_ms == 0
    # Of an hour: the free ones of two windows, the doubling ones (2 s to 15 min), and four.
    assert all(sum(at <= each < at + WINDOW_MS for each in tries) <= 2 * free + 2 * 10 + 4 for at in tries)
