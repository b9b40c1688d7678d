"""Who signs in, deeds and repeats: one contract, both databases."""

import asyncio
from dataclasses import replace

import pytest

from gatekeeper.errors import Fault
from gatekeeper.ports import Customer
from gatekeeper.ports.people import Deed, Login, Role, Session
from gatekeeper.rules.throttling import FIRST_CLOSED_MS

ACME = Customer("acme", "Acme", "pro", 1, 2)
OWNER = Login("op_1", "o@example.org", 5, Role.OWNER, password="$argon2id$1")
ADMIN = Login("op_2", "a@example.org", 6, Role.ADMIN, password="$argon2id$2")
PERSON = Login("p_1", "p@example.org", 7, customer_id="acme")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


async def people(store):
    assert await store.create_customer(ACME)
    for login in (OWNER, ADMIN, PERSON):
        assert await store.create_login(login)


def test_an_address_belongs_to_one_login(with_store):
    async def body(store):
        await people(store)
        assert not await store.create_login(replace(ADMIN, id="op_9"))
        assert not await store.create_login(replace(ADMIN, email="else@example.org"))
        assert await store.login("op_1") == OWNER
        assert await store.login_of("p@example.org") == PERSON
        assert await store.login("op_9") is None
        assert await store.login_of("P@example.org") is None
        assert list(await store.logins()) == [OWNER, ADMIN]
        assert list(await store.logins(after="op_1", limit=1)) == [ADMIN]
        assert list(await store.logins(customer_id="acme")) == [PERSON]
        assert not await store.update_login(replace(ADMIN, email=OWNER.email))
        assert await store.login("op_2") == ADMIN
        with pytest.raises(Fault):
            await store.create_login(Login("p_2", "q@example.org", 1, customer_id="nobody"))
        with pytest.raises(Fault):
            await store.create_login(Login("p_3", "r@example.org", 1))

    with_store(body)


def test_a_change_counts_only_on_what_was_read(with_store):
    async def body(store):
        await people(store)
        viewer = replace(ADMIN, role=Role.VIEWER, created_ms=99)
        assert await store.update_login(viewer, before=ADMIN)
        assert not await store.update_login(replace(ADMIN, disabled_ms=4), before=ADMIN)
        assert await store.login("op_2") == replace(viewer, created_ms=ADMIN.created_ms)
        assert not await store.update_login(replace(ADMIN, id="op_7"))
        await store.touch_login("op_2", 50)
        await store.touch_login("op_2", 40)
        assert (await store.login("op_2")).last_ms == 50
        assert await store.update_customer(replace(ACME, name="Other"), before=ACME)
        assert not await store.update_customer(replace(ACME, plan_id="free"), before=ACME)
        assert await store.customer("acme") == replace(ACME, name="Other")

    with_store(body)


@pytest.mark.parametrize("change", [{"role": Role.ADMIN}, {"disabled_ms": 1}, {"password": None}])
def test_the_last_owner_stays(with_store, change):
    async def body(store):
        await people(store)
        # Whoever cannot sign in is none.
        await store.create_login(Login("op_3", "x@example.org", 1, Role.OWNER))
        await store.create_login(Login("op_4", "y@example.org", 1, Role.OWNER, password="h", disabled_ms=3))
        assert not await store.update_login(replace(OWNER, **change))
        second = replace(ADMIN, role=Role.OWNER)
        assert await store.update_login(second)
        # Each would leave the other: only one of two at once goes.
        done = await asyncio.gather(
            store.update_login(replace(OWNER, **change)), store.update_login(replace(second, **change))
        )
        assert sorted(done) == [False, True]

    with_store(body)


def test_a_session_ends_and_so_does_that_of_somebody_disabled(with_store):
    async def body(store):
        await people(store)
        for number in range(3):
            await store.add_session(Session(f"d{number}", "op_2", 100, 200 + number))
        assert await store.session("d0", 150) == (Session("d0", "op_2", 100, 200), ADMIN)
        assert await store.session("d0", 200) is None
        assert await store.session("d9", 150) is None
        await store.extend_session("d0", 300)
        await store.extend_session("d0", 250)
        assert (await store.session("d0", 299))[0].expires_ms == 300
        await store.update_login(replace(ADMIN, disabled_ms=9))
        assert await store.session("d0", 150) is None
        await store.update_login(ADMIN)
        await store.end_session("d0")
        assert await store.session("d0", 150) is None
        assert await store.session("d1", 150)
        await store.end_sessions("op_2")
        assert await store.session("d1", 150) is None
        await store.add_session(Session("old", "op_1", 100, 200))
        await store.add_session(Session("new", "op_1", 201, 300))
        assert await store.session("old", 150) is None

    with_store(body)


def test_a_link_works_once_whoever_is_first(with_store):
    async def body(store):
        await people(store)
        await store.add_link("l1", "op_1", 100)
        assert await store.link_login("l1", 99) == OWNER
        assert await store.link_login("l1", 100) is None
        assert await store.use_link("l1", 100) is None
        await store.add_link("l2", "op_1", 200)
        used = await asyncio.gather(*(store.use_link("l2", 150) for _ in range(5)))
        assert [each for each in used if each] == [OWNER]
        await store.add_link("l3", "op_2", 200)
        await store.update_login(replace(ADMIN, disabled_ms=1))
        assert await store.use_link("l3", 150) is None
        await store.add_link("l4", "op_1", 200)
        await store.end_links("op_1")
        assert await store.use_link("l4", 150) is None

    with_store(body)


def test_a_token_that_was_signed_out_is_nobodys(with_store):
    async def body(store):
        await people(store)
        assert await store.token_login("t1", "op_2") == ADMIN
        await store.end_token("t1", 10 * DAY_MS)
        await store.end_token("t1", 10 * DAY_MS)
        assert await store.token_login("t1", "op_2") is None
        assert await store.token_login("t2", "op_2") == ADMIN
        assert await store.token_login("t2", "op_9") is None
        # All of a login that expire before, and later ones too when they are ended again.
        await store.end_token("all", 500)
        assert await store.token_login("t2", "op_2", "all", 499) is None
        assert await store.token_login("t2", "op_2", "all", 500) == ADMIN
        for ended_ms in (600, 400):
            await store.end_token("all", ended_ms)
            assert await store.token_login("t2", "op_2", "all", 599) is None
            assert await store.token_login("t2", "op_2", "all", 600) == ADMIN
        await store.update_login(replace(ADMIN, disabled_ms=1))
        assert await store.token_login("t2", "op_2") is None

    with_store(body)


def test_a_thousand_tries_at_once_are_no_more_than_the_free_ones(with_store):
    async def body(store):
        at_once = await asyncio.gather(*(store.knock({"e": 5, "a": 30}, 1_000) for _ in range(40)))
        assert at_once.count(0) == 5
        assert {each for each in at_once if each} == {1_000 + FIRST_CLOSED_MS}
        # Counted for neither where one is closed.
        assert await store.knock({"e": 5, "b": 1}, 1_000) == 1_000 + FIRST_CLOSED_MS
        assert await store.knock({"b": 2}, 1_000) == 0
        now_ms = 1_000 + FIRST_CLOSED_MS
        assert await store.knock({"e": 5}, now_ms) == 0
        assert await store.knock({"e": 5}, now_ms + 1) == now_ms + 2 * FIRST_CLOSED_MS
        await store.pardon(["e"], ["a"])
        assert await store.knock({"e": 5}, now_ms + 1) == 0
        await store.pardon(["nobody"], ["nothing"])

    with_store(body)


def test_deeds_are_listed_latest_first_and_filtered(with_store):
    async def body(store):
        for number in range(5):
            actor, subject = ("cli", "acme") if number % 2 else ("o@example.org", "beta")
            await store.begin_deed(Deed(f"deed_{number}", number, actor, "POST /x", subject, "begun", "{}"))
        await store.end_deed("deed_1", "done", '{"a":1}')
        await store.end_deed("deed_1", "refused", "{}")
        await store.end_deed("deed_2", "refused", "{}", "gamma")
        assert [deed.id for deed in await store.deeds(limit=2)] == ["deed_4", "deed_3"]
        assert [deed.id for deed in await store.deeds(before="deed_3")] == ["deed_2", "deed_1", "deed_0"]
        (mine, *_) = await store.deeds(actor="cli", before="deed_3")
        assert mine == Deed("deed_1", 1, "cli", "POST /x", "acme", "done", '{"a":1}')
        assert [deed.state for deed in await store.deeds(subject="gamma")] == ["refused"]
        assert [deed.id for deed in await store.deeds(subject="acme", actor="cli")] == ["deed_3", "deed_1"]
        assert await store.deeds(subject="acme", actor="o@example.org") == []

    with_store(body)


def test_the_first_of_many_repeats_goes_on_alone(with_store):
    async def body(store):
        at_once = await asyncio.gather(*(store.claim_repeat("k", "f", 10) for _ in range(5)))
        assert at_once.count(None) == 1
        assert {each for each in at_once if each} == {("f", 0, "")}
        await store.answer_repeat("k", 201, '{"a":"é"}')
        await store.answer_repeat("k", 500, "later")
        assert await store.claim_repeat("k", "other", 11) == ("f", 201, '{"a":"é"}')
        await store.drop_repeat("k")
        assert await store.claim_repeat("k", "other", 12) is None
        assert await store.claim_repeat("k", "again", 12 + DAY_MS) == ("other", 0, "")
        assert await store.claim_repeat("k", "again", 13 + DAY_MS) is None

    with_store(body)
