"""Sessions, tokens and links over time: idle and whole life, what ends them, and how soon that is seen."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from argon2 import PasswordHasher

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Refusal
from gatekeeper.people.operators import Operators
from gatekeeper.people.passwords import Passwords
from gatekeeper.people.signins import HOUR_MS, SignIns, csrf_matches, csrf_of_cookie, digest_of, network_of
from gatekeeper.people.tokens import Tokens
from gatekeeper.ports import Customer
from gatekeeper.ports.people import Role
from gatekeeper.stores import SqlStore, open_store

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery"


class Hand(Clock):
    """Time that only we move."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


@pytest.fixture
def stage(tmp_path) -> Callable[[Callable[..., Awaitable[Any]]], None]:
    """Runs ``body(signins, operators, clock, store)`` on a store of its own."""

    def run(body: Callable[..., Awaitable[Any]]) -> None:
        async def opened() -> None:
            clock = Hand()
            store = await open_store(f"sqlite:///{tmp_path}/people.sqlite", clock=clock)
            assert isinstance(store, SqlStore)
            signins = SignIns(store, Passwords(CHEAP), Tokens(lambda: b"s" * 32), clock)
            try:
                await store.create_customer(Customer("acme", "Acme", "pro", 1, 2))
                await body(signins, Operators(store, signins, clock), clock, store)
            finally:
                await store.close()

        asyncio.run(opened())

    return run


def test_a_session_ends_when_it_is_not_used_and_after_its_whole_life_even_when_it_is(stage):
    async def body(signins, operators, clock, store):
        for login, idle_h, whole_h in (
            (await operators.add("o@example.org", Role.ADMIN), 2, 12),
            (await operators.add_person("acme", "p@example.org"), 24, 14 * 24),
        ):
            cookie, session = await signins.begin(login)
            assert session.digest == digest_of(cookie) and cookie not in repr(session)
            clock.ms += idle_h * HOUR_MS - 1
            assert (await signins.session(cookie))[1] == login
            clock.ms += idle_h * HOUR_MS
            assert await signins.session(cookie) is None
            cookie, _ = await signins.begin(login)
            begun_ms = clock.ms
            while await signins.session(cookie) is not None:
                clock.ms += HOUR_MS
            assert clock.ms - begun_ms == whole_h * HOUR_MS

    stage(body)


def test_signing_in_again_makes_a_new_session_and_ends_the_one_that_came_along(stage):
    async def body(signins, operators, clock, store):
        login = await operators.add("o@example.org", Role.ADMIN)
        first, _ = await signins.begin(login)
        second, _ = await signins.begin(login, first)
        assert first != second
        assert await signins.session(first) is None
        # A cookie that somebody else has chosen becomes nobody's session.
        third, _ = await signins.begin(login, "B" * 43)
        assert third != "B" * 43
        assert await signins.session("B" * 43) is None
        for odd in ("", "x", "é" * 43, "A" * 44, "' OR 1=1 --"):
            assert await signins.session(odd) is None
            await signins.end(odd)

    stage(body)


def test_the_csrf_token_belongs_to_one_session(stage):
    async def body(signins, operators, clock, store):
        login = await operators.add("o@example.org", Role.ADMIN)
        one, two = (await signins.begin(login))[0], (await signins.begin(login))[0]
        assert csrf_matches(one, csrf_of_cookie(one))
        assert not csrf_matches(one, csrf_of_cookie(two))
        assert not csrf_matches(one, "")
        assert not csrf_matches(one, "é" * 64)
        # Whoever reads the database does not have it.
        assert csrf_of_cookie(one) != digest_of(one)

    stage(body)


def test_who_lost_a_right_has_lost_it_within_a_second(stage):
    async def body(signins, operators, clock, store):
        for change in ({"role": Role.VIEWER}, {"disabled": True}):
            login = await operators.add(f"{next(iter(change))}@example.org", Role.ADMIN)
            token, _ = signins.token(login)
            assert await signins.of_token(token) == login
            # As another process does it, which cannot tell this one.
            other = Operators(store, SignIns(store, Passwords(CHEAP), Tokens(lambda: b"s" * 32), clock), clock)
            await other.change(login, **change)
            clock.ms += 999
            await signins.of_token(token)
            clock.ms += 1
            assert await signins.of_token(token) is None

    stage(body)


def test_who_signs_in_with_the_old_password_while_it_is_changed_is_not_in(stage):
    async def body(signins, operators, clock, store):
        await signins.set_password(await operators.add("o@example.org", Role.ADMIN), PASSWORD)
        thief = await signins.by_password("o@example.org", PASSWORD, "10.0.0.9")
        changed = await signins.change_password(thief, PASSWORD, "another horse battery", "10.0.0.1")
        with pytest.raises(Refusal) as refused:
            await signins.begin(thief)
        assert refused.value.code is Code.WRONG_PASSWORD
        cookie, _ = await signins.begin(changed)
        assert (await signins.session(cookie))[1].id == changed.id

    stage(body)


def test_a_token_of_before_a_right_was_taken_away_is_worth_nothing_when_it_is_given_back(stage):
    async def body(signins, operators, clock, store):
        for away, back in (({"role": Role.VIEWER}, {"role": Role.ADMIN}), ({"disabled": True}, {"disabled": False})):
            login = await operators.add(f"{next(iter(away))}@example.org", Role.ADMIN)
            token, _ = signins.token(login)
            clock.ms += 1
            login = await operators.change(await operators.change(login, **away), **back)
            assert await signins.of_token(token) is None
            # The one that he gets now is good, and lasts for its whole hour.
            fresh, expires_ms = signins.token(login)
            clock.ms = expires_ms - 1
            assert await signins.of_token(fresh) == login

    stage(body)


def test_a_token_that_says_more_than_its_owner_has_is_nobodys(stage):
    async def body(signins, operators, clock, store):
        login = await operators.add("v@example.org", Role.VIEWER)
        token, _ = signins.token(replace(login, role=Role.OWNER))
        assert await signins.of_token(token) is None
        person = await operators.add_person("acme", "p@example.org")
        for forged in (replace(person, customer_id="beta"), replace(person, role=Role.OWNER)):
            assert await signins.of_token(signins.token(forged)[0]) is None
        assert await signins.of_token(signins.token(person)[0]) == person

    stage(body)


def test_a_token_of_before_the_password_was_changed_is_worth_nothing(stage):
    async def body(signins, operators, clock, store):
        login = await signins.set_password(await operators.add("o@example.org", Role.ADMIN), PASSWORD)
        token, _ = signins.token(login)
        assert await signins.of_token(token) is not None
        await signins.change_password(login, PASSWORD, "another horse battery", "10.0.0.1")
        assert await signins.of_token(token) is None
        with pytest.raises(Refusal) as wrong:
            await signins.by_password("o@example.org", PASSWORD, "10.0.0.1")
        assert wrong.value.code is Code.WRONG_PASSWORD

    stage(body)


def test_many_addresses_of_one_network_are_one_and_a_company_is_not_kept_out_by_its_own_success(stage):
    async def body(signins, operators, clock, store):
        await signins.set_password(await operators.add("o@example.org", Role.ADMIN), PASSWORD)
        for _ in range(60):
            await signins.by_password("o@example.org", PASSWORD, "10.0.0.1")
        kept_out = 0
        for number in range(60):
            with pytest.raises(Refusal) as wrong:
                await signins.by_password(f"x{number}@example.org", "wrong", f"2001:db8::{number:x}")
            kept_out += wrong.value.code is Code.RATE_LIMITED
        assert kept_out == 30
        assert (await signins.by_password("o@example.org", PASSWORD, "10.0.0.1")).email == "o@example.org"

    stage(body)


def test_the_door_stays_closed_twice_as_long_each_time_and_an_hour_forgets(stage):
    async def body(signins, operators, clock, store):
        waits = []
        for _ in range(25):
            with pytest.raises(Refusal) as wrong:
                await signins.by_password("x@example.org", "wrong", "10.0.0.1")
            if wrong.value.code is Code.RATE_LIMITED:
                waits.append(wrong.value.retry_after_s)
                clock.ms += wrong.value.retry_after_s * 1000
        assert waits[:9] == [2, 4, 8, 16, 32, 64, 128, 256, 512]
        assert max(waits) == 900
        clock.ms += 2 * HOUR_MS
        for _ in range(5):
            with pytest.raises(Refusal) as wrong:
                await signins.by_password("x@example.org", "wrong", "10.0.0.1")
            assert wrong.value.code is Code.WRONG_PASSWORD

    stage(body)


def test_a_link_lasts_an_hour_and_a_newer_one_ends_it(stage):
    async def body(signins, operators, clock, store):
        login = await operators.add("o@example.org", Role.ADMIN)
        first = await operators.link(login)
        second = await operators.link(login)
        assert await signins.look_at_link(first) is None
        assert await signins.look_at_link(second) == login
        clock.ms += HOUR_MS
        assert await signins.use_link(second) is None
        with pytest.raises(Refusal):
            await operators.link(await operators.remove(login))

    stage(body)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("", "unknown"),
        ("<script>", "unknown"),
    ],
)
def test_a_client_is_counted_by_the_network_that_it_has_at_hand(address, network):
    assert network_of(address) == network
