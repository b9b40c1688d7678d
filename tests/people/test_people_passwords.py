"""Passwords: slow to guess, never told, and no way to make the gateway busy with them."""

import asyncio

import pytest
from argon2 import PasswordHasher

from gatekeeper.errors import Code, Refusal
from gatekeeper.people.passwords import WAITING_MAX, Passwords, check_password

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
GOOD = "correct horse battery"


def test_a_hash_is_argon2id_with_the_low_memory_profile_of_the_rfc():
    hashed = asyncio.run(Passwords().hashed(GOOD))
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert GOOD not in hashed


def test_a_password_matches_itself_and_nothing_else():
    async def body():
        passwords = Passwords(CHEAP)
        hashed = await passwords.hashed("grüne Äpfel und Birnen")
        assert await passwords.matches(hashed, "grüne Äpfel und Birnen")
        # The same letters from another keyboard.
        assert await passwords.matches(hashed, "gru\u0308ne A\u0308pfel und Birnen")
        for wrong in ("", "grüne Äpfel", "Grüne Äpfel und Birnen", "x" * 100_000):
            assert not await passwords.matches(hashed, wrong)
            assert not await passwords.matches(None, wrong)
            assert not await passwords.matches("$argon2id$broken", wrong)
        assert not passwords.is_old(hashed)
        assert Passwords().is_old(hashed)

    asyncio.run(body())


def test_for_nobody_a_hash_is_worked_out_too():
    class Counting(PasswordHasher):
        asked: list[str] = []  # noqa: RUF012 - one test, one list

        def verify(self, hash, password):
            self.asked.append(hash)
            return super().verify(hash, password)

    async def body():
        hasher = Counting(time_cost=1, memory_cost=8, parallelism=1)
        passwords = Passwords(hasher)
        assert not await passwords.matches(None, GOOD)
        hashed = await passwords.hashed(GOOD)
        assert await passwords.matches(hashed, GOOD)
        assert len(hasher.asked) == 2
        # With the same parameters, and so for as long.
        assert hasher.asked[0].split("$")[1:4] == hashed.split("$")[1:4]

    asyncio.run(body())


def test_no_number_of_askers_takes_more_than_some_turns():
    async def body():
        passwords = Passwords(CHEAP)
        done = await asyncio.gather(
            *(passwords.matches(None, GOOD) for _ in range(WAITING_MAX + 20)), return_exceptions=True
        )
        refused = [each for each in done if isinstance(each, Refusal)]
        assert len(refused) == 20
        assert {(each.code, each.retry_after_s) for each in refused} == {(Code.RATE_LIMITED, 5)}
        assert not await passwords.matches(None, GOOD)

    asyncio.run(body())


@pytest.mark.parametrize(
    "password",
    [
        "",
        "short",
        "x" * 11,
        "ab" * 10,
        "password1234",
        "PASSWORDPASSWORD",
        "me@example.org",
        "é" * 600,
        "long enough\0",
    ],
)
def test_a_password_that_is_no_good_is_told_without_repeating_it(password):
    with pytest.raises(Refusal) as refused:
        check_password(password, "Me@example.org")
    assert refused.value.code is Code.BAD_REQUEST
    assert not password or password not in str(refused.value)
    check_password(GOOD, "me@example.org")
