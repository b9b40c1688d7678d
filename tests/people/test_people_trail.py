"""Deeds: written first, ended once, and what happens when the database does not."""

import asyncio
import json

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.people.repeats import Remembered
from gatekeeper.people.trail import DETAIL_LETTERS_MAX, Deeds


class Book:
    """A trail that remembers, and fails when it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.begun = []
        self.ended = []

    async def begin_deed(self, deed):
        if self.fails == "begin":
            raise Fault("ledger", FaultKind.STORE, "away")
        self.begun.append(deed)

    async def end_deed(self, deed_id, state, detail, subject=""):
        if self.fails == "end":
            raise Fault("ledger", FaultKind.STORE, "away")
        self.ended.append((deed_id, state, json.loads(detail), subject))

    async def deeds(self, *, before="", actor=None, subject=None, limit=100):
        raise NotImplementedError


def doing(book, body):
    async def run():
        async with Deeds(book, SystemClock()).doing("cli", "keys create", "acme", {"from": "10.0.0.1"}) as deed:
            await body(deed)

    asyncio.run(run())


def test_a_deed_is_written_before_the_change_and_ended_after_it():
    book = Book()

    async def body(deed):
        assert [each.state for each in book.begun] == ["begun"]
        assert book.ended == []
        deed.note({"subject": "key_1", "after": {"name": "x"}})

    doing(book, body)
    (deed,) = book.begun
    assert (deed.actor, deed.action, deed.subject) == ("cli", "keys create", "acme")
    assert book.ended == [(deed.id, "done", {"from": "10.0.0.1", "after": {"name": "x"}}, "key_1")]


def test_without_its_deed_nothing_is_changed():
    async def body(deed):
        raise AssertionError("it ran")

    with pytest.raises(Fault):
        doing(Book("begin"), body)


def test_what_was_refused_says_why_and_what_failed_stays_begun():
    async def refuses(deed):
        raise Refusal(Code.CONFLICT, "no")

    async def fails(deed):
        raise Fault("ledger", FaultKind.STORE, "away")

    book = Book()
    with pytest.raises(Refusal):
        doing(book, refuses)
    assert [(state, detail["refused"]) for _, state, detail, _ in book.ended] == [("refused", "conflict")]
    book = Book()
    with pytest.raises(Fault):
        doing(book, fails)
    assert (len(book.begun), book.ended) == (1, [])


def test_a_change_that_is_made_is_answered_though_its_end_cannot_be_written():
    done = []

    async def body(deed):
        done.append(1)

    doing(Book("end"), body)
    assert done == [1]


def test_a_detail_is_bounded_and_fit_for_every_database():
    book = Book()

    async def body(deed):
        deed.note({"after": "x" * 100_000, "nul": "a\0b", "subject": "s" * 10_000})

    doing(book, body)
    ((_, _, detail, subject),) = book.ended
    assert len(json.dumps(detail)) <= DETAIL_LETTERS_MAX
    assert "\\u0000" not in json.dumps(detail)
    assert len(subject) == 300


def test_deeds_of_one_process_are_in_the_order_of_time():
    async def run():
        book, clock = Book(), SystemClock()
        for _ in range(3):
            async with Deeds(book, clock).doing("cli", "x", ""):
                await asyncio.sleep(0.002)
        return [deed.id for deed in book.begun]

    ids = asyncio.run(run())
    assert ids == sorted(ids)
    assert len(set(ids)) == 3


def test_of_what_was_asked_nothing_is_kept_that_a_password_could_be_tried_on():
    kept = []

    class Repeats:
        async def claim_repeat(self, key, fingerprint, now_ms):
            kept.append((key, fingerprint))

    async def run():
        remembered = Remembered(Repeats(), SystemClock())
        for key in ("one", "one", "other"):
            assert (await remembered.claim("operator:op_1", key, b'{"new": "correct horse battery"}'))[1] is None

    asyncio.run(run())
    one, again, other = kept
    assert one == again and one[0] != other[0]
    # Whoever reads the table has neither of the two keys, so the same body leaves nothing that is the same.
    assert one[1] != other[1]
