"""How many users and agents one key may name for the first time."""

import pytest
from fakes.proxies import FakeClock

from gatekeeper.errors import Code, Refusal
from gatekeeper.proxy.newcomers import HOUR_S, Newcomers


def refused(newcomers, key_id, user_id, most, agent_id=None):
    with pytest.raises(Refusal) as caught:
        newcomers.check(key_id, user_id, agent_id, most)
    assert caught.value.code is Code.TOO_MANY_SUBJECTS
    return caught.value


def test_a_key_brings_so_many_new_names_in_an_hour_and_known_ones_go_on():
    clock = FakeClock()
    newcomers = Newcomers(clock)
    for number in range(3):
        newcomers.check("key_1", f"user{number}", None, 3)
    assert refused(newcomers, "key_1", "user3", 3).retry_after_s == HOUR_S
    newcomers.check("key_1", "user0", None, 3)
    newcomers.check("key_2", "user3", None, 3)
    clock.now_s += HOUR_S - 10
    assert refused(newcomers, "key_1", None, 3, agent_id="planner").retry_after_s == 10
    clock.now_s += 10
    newcomers.check("key_1", None, "planner", 3)
    newcomers.check("key_1", "user1", None, 3)


def test_none_may_be_allowed():
    assert refused(Newcomers(FakeClock()), "key_1", "alice", 0)


def test_what_is_remembered_is_bounded_and_what_was_forgotten_is_not_refused_for_it():
    newcomers = Newcomers(FakeClock(), names_max=100)
    for number in range(1_000):
        newcomers.check(f"key_{number % 7}", f"user{number}", None, 10_000)
    kept = sum(len(names.known) for names in newcomers._keys.values())
    assert kept == newcomers._count <= 100
    for number in range(500):
        newcomers.check("alone", f"user{number}", None, 10_000)
    assert sum(len(names.known) for names in newcomers._keys.values()) <= 100
