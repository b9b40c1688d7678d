"""Lists that operators page through, on both databases: customers that are searched, keys that end, batches."""

import asyncio
from dataclasses import replace

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.ports import Customer, InFlight, Key
from gatekeeper.rules.billing import BatchState
from gatekeeper.stores import open_store

PERSON = Customer("ada", "Ada 100%", "pro", 1, 1, email="ada@example.com", stripe_customer_id="cus_Ada")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


def test_customers_are_found_by_any_of_their_words_and_signs_are_no_patterns(url):
    async def work() -> None:
        store = await open_store(url, clock=SystemClock())
        try:
            await store.create_customer(PERSON)
            await store.create_customer(
                replace(PERSON, id="bob", name="Bob_B", plan_id="free", email=None, stripe_customer_id=None)
            )

            async def found(find: str | None = None, plan_id: str | None = None, after: str = "") -> list[str]:
                return [one.id for one in await store.customers(find=find, plan_id=plan_id, after=after)]

            assert (
                await found("ADA") == await found("example") == await found("cus_ada") == await found("100%") == ["ada"]
            )
            assert await found("b_b") == ["bob"]
            assert await found("a_a") == (await found("%"))[1:] == await found("!") == await found("' OR 1=1 --") == []
            assert await found(plan_id="free") == await found(after="ada", plan_id="free") == ["bob"]
            assert await found("a", "free") == []
        finally:
            await store.close()

    asyncio.run(work())


def test_a_key_is_never_made_to_live_longer_and_all_of_a_customer_are_revoked_once(url):
    async def work() -> None:
        store = await open_store(url, clock=SystemClock())
        try:
            await store.create_customer(PERSON)
            for number, expires_ms in enumerate((None, 500, 2_000)):
                await store.create_key(Key(f"k{number}", "ada", "", "gk", 1, expires_ms=expires_ms), f"digest{number}")
                assert await store.expire_key(f"k{number}", 1_000)
            assert [(await store.key(f"k{number}")).expires_ms for number in range(3)] == [1_000, 500, 1_000]
            assert not await store.expire_key("none", 1)
            assert (await store.revoke_keys("ada", 7), await store.revoke_keys("ada", 9)) == (3, 0)
            assert not await store.expire_key("k0", 1)
            assert await store.in_flight() == InFlight(0, 0, 0, 0)
            assert await store.batches(state=BatchState.DEAD, after=(5, "x"), limit=2) == []
            assert await store.deliveries(state="dead", after=(5, "x", "y"), limit=2) == []
        finally:
            await store.close()

    asyncio.run(work())
