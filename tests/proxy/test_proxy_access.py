"""Directory: who a key is, remembered for a second at most, and never more than it may hold."""

import asyncio
from dataclasses import replace

import pytest
from fakes.proxies import CUSTOMER, KEY, SECRET, Bench, FakeCaller

from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.ports import Holder
from gatekeeper.proxy import access
from gatekeeper.proxy.call import Credentials
from gatekeeper.rules.keys import digest, make_key

MINE = Credentials((SECRET,), b"")


def test_a_holder_is_remembered_for_a_second_and_a_revocation_counts_after_it():
    async def body() -> None:
        bench = Bench()
        for _ in range(5):
            access.check_valid(await bench.directory.find(MINE), bench.clock.now_ms())
        assert bench.keys.asked == 1
        bench.keys.holders[digest(SECRET)] = Holder(replace(KEY, revoked_ms=1), CUSTOMER)
        bench.clock.now_s += 1.0
        access.check_valid(await bench.directory.find(MINE), bench.clock.now_ms())
        bench.clock.now_s += 0.001
        with pytest.raises(Refusal) as refusal:
            access.check_valid(await bench.directory.find(MINE), bench.clock.now_ms())
        assert refusal.value.code is Code.REVOKED_KEY

    asyncio.run(body())


def test_of_two_look_ups_that_cross_the_older_one_is_not_believed_for_longer():
    async def body() -> None:
        bench = Bench()
        valid, revoked = Holder(KEY, CUSTOMER), Holder(replace(KEY, revoked_ms=1), CUSTOMER)
        answers: list[asyncio.Future[Holder]] = []

        async def slow(_: str) -> Holder:
            answers.append(asyncio.get_running_loop().create_future())
            return await answers[-1]

        bench.keys.holder = slow  # type: ignore[method-assign]
        older = asyncio.create_task(bench.directory.find(MINE))
        await asyncio.sleep(0)
        bench.clock.now_s += 0.9
        newer = asyncio.create_task(bench.directory.find(MINE))
        await asyncio.sleep(0)
        answers[1].set_result(revoked)
        assert await newer is revoked
        # What it read is 0.9 s old when it comes, and is believed for another 0.1 s.
        answers[0].set_result(valid)
        assert await older is valid
        bench.clock.now_s += 0.11
        last = asyncio.create_task(bench.directory.find(MINE))
        await asyncio.sleep(0)
        answers[2].set_result(revoked)
        assert await last is revoked

    asyncio.run(body())


def test_a_key_that_is_revoked_while_the_body_trickles_in_is_refused():
    class Trickling(FakeCaller):
        """Revokes the key between two pieces."""

        async def body(self):
            async for piece in super().body():
                yield piece
                bench.keys.holders[digest(SECRET)] = Holder(replace(KEY, revoked_ms=1), CUSTOMER)
                bench.clock.now_s += 60

    bench = Bench()

    async def body() -> None:
        with pytest.raises(Refusal) as refusal:
            await bench.proxy.serve(bench.call(b'{"messages":[]}'), Trickling(b'{"messages"', b":[]}"))
        assert refusal.value.code is Code.REVOKED_KEY
        assert bench.ledger.open == {}

    asyncio.run(body())


def test_a_key_made_after_it_was_refused_works_after_a_second():
    async def body() -> None:
        bench = Bench()
        key = make_key(b"n" * 24)
        with pytest.raises(Refusal):
            await bench.directory.find(Credentials((key,), b""))
        bench.keys.holders[digest(key)] = Holder(KEY, CUSTOMER)
        bench.clock.now_s += 1.01
        assert (await bench.directory.find(Credentials((key,), b""))).customer is CUSTOMER

    asyncio.run(body())


def test_no_more_holders_are_kept_than_the_bound(monkeypatch):
    monkeypatch.setattr(access, "HOLDERS_MAX", 3)

    async def body() -> None:
        bench = Bench()
        for number in range(10):
            with pytest.raises(Refusal):
                await bench.directory.find(Credentials((make_key(bytes([number]) * 24),), b""))
        assert len(bench.directory._known) == 3

    asyncio.run(body())


def test_the_use_of_keys_is_written_many_at_once_and_kept_when_it_cannot_be():
    async def body() -> None:
        bench = Bench()
        for now_ms in (1, 2, 3):
            bench.directory.used("key_1", now_ms)
        bench.keys.failure = Fault("ledger", FaultKind.STORE, "away")
        with pytest.raises(Fault):
            await bench.directory.write_used()
        bench.directory.used("key_2", 9)
        bench.keys.failure = None
        await bench.directory.write_used()
        await bench.directory.write_used()
        assert bench.keys.touched == [{"key_1": 3, "key_2": 9}]

    asyncio.run(body())


def test_without_keys_a_foreign_key_is_as_good_as_none_but_one_of_ours_counts():
    async def body() -> None:
        bench = Bench()
        for keys in ((), ("sk-whatever",), ("a", "b")):
            holder = await bench.directory.holder(Credentials(keys, b""), "acme")
            assert (holder.key.id, holder.key.may_assert) == ("", True)
        assert (await bench.directory.holder(MINE, "acme")).key.id == "key_1"
        for wrong in ((SECRET[:-1],), (SECRET, "sk-x"), (make_key(b"x" * 24),)):
            with pytest.raises(Refusal):
                await bench.directory.holder(Credentials(wrong, b""), "acme")
        with pytest.raises(Refusal):
            await bench.directory.holder(Credentials((), b""), None)
        with pytest.raises(Refusal):
            await bench.directory.holder(Credentials((), b""), "nobody")

    asyncio.run(body())


def test_a_ledger_that_is_away_refuses_with_503_and_not_with_500():
    async def body() -> None:
        bench = Bench()
        bench.keys.failure = Fault("ledger", FaultKind.STORE, "password=hunter2")
        with pytest.raises(Refusal) as refusal:
            await bench.serve(b"{}")
        assert (refusal.value.code, refusal.value.status) == (Code.LEDGER_UNAVAILABLE, 503)
        assert "hunter2" not in refusal.value.public

    asyncio.run(body())
