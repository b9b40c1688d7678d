"""Limits of two scopes at once: each user of each model, this key on that route."""

import itertools
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules import holds
from gatekeeper.rules.declared import EACH, DeclaredLimit, applying, forms, indexed, is_one, rank
from gatekeeper.rules.holds import HeldLine, Hold, HoldState
from gatekeeper.rules.limits import (
    SCOPES,
    CounterKey,
    CounterRow,
    Mode,
    Pair,
    Scope,
    StockLimit,
    Window,
    is_owned,
    model_of,
    parts_of,
    scope_named,
    subjects_of,
)
from gatekeeper.rules.lines import Bounds, Subject, stock_lines
from gatekeeper.rules.overlays import Standing, holding_for
from gatekeeper.rules.plans import Plan

NOON = 1_750_000_000_000
PLAN = Plan("pro", "Pro", Decimal(99), None)
ANN = Subject("acme", "pro", "chat", 0, key_id="key_1", user_id="ann", agent_id="bot", model="org/a,b")


def limit(name: str, scope, subject: str = EACH, cap: int = 5) -> DeclaredLimit:
    return DeclaredLimit(StockLimit(name, scope, "requests", Window.DAY, cap), subject)


def names(limits, who: Subject = ANN) -> list[str]:
    return [each.limit.name for each in applying(limits, PLAN, who.of)]


def test_a_pair_has_one_spelling_and_its_model_stands_last():
    order = list(Scope)
    for pair in Pair:
        first, second = parts_of(pair)
        assert pair == f"{first},{second}"
        assert order.index(first) < order.index(second)
        assert scope_named(str(pair)) is pair
        assert is_owned(pair) is (is_owned(first) or is_owned(second))
    assert scope_named("user") is Scope.USER
    for wrong in ("model,user", "customer,user", "global,model", "user,user", "user,", "nobody", ""):
        with pytest.raises(ValueError, match="not a valid"):
            scope_named(wrong)


def test_the_subject_of_a_pair_is_both_subjects_and_missing_where_one_is():
    assert ANN.of(Pair.USER_MODEL) == "acme/ann,org/a,b"
    assert ANN.of(Pair.AGENT_KEY) == "acme/bot,key_1"
    assert ANN.of(Pair.PLAN_ROUTE) == "pro,chat"
    assert Subject("acme", "pro", "chat", 0, user_id="ann").of(Pair.USER_MODEL) is None
    assert Subject("acme", "pro", "chat", 0, model="m").of(Pair.USER_MODEL) is None


letters = st.text(st.sampled_from("abc.-:@_"), min_size=1, max_size=4)
texts = st.text(st.sampled_from("ab,/ +:"), min_size=1, max_size=6)


@given(letters, letters, letters, texts, st.sampled_from(Pair))
def test_a_subject_is_read_as_it_was_written_and_no_two_are_written_alike(customer, user, key, model, pair):
    who = Subject(customer, "pro", "chat", 0, key_id=key, user_id=user, agent_id=user, model=model)
    written = who.of(pair)
    assert subjects_of(pair, written) == tuple(who.of(part) for part in parts_of(pair))
    assert is_one(pair, written) is (EACH not in subjects_of(pair, written))
    assert model_of(pair, written) == (model if parts_of(pair)[1] is Scope.MODEL else None)


def test_each_pair_counts_by_itself_and_a_named_one_beats_what_names_less():
    pair = Pair.USER_MODEL
    everybody, of_model = limit("each", pair), limit("model", pair, "each,org/a,b")
    of_name, of_user = limit("name", pair, "ann,each"), limit("user", pair, "acme/ann,each")
    both = limit("both", pair, "acme/ann,org/a,b")
    assert names([everybody]) == ["each"]
    assert names([everybody, of_model]) == ["model"]
    # What names as much of it as another does is no exception from it: both hold.
    assert names([everybody, of_model, of_name]) == ["model", "name"]
    assert names([everybody, of_model, of_user]) == ["user"]
    assert names([everybody, of_model, of_user, both]) == ["both"]
    assert names([limit("else", pair, "each,gpt-4o"), limit("other", pair, "bob,each")]) == []
    # A pair says nothing of what counts each of its parts.
    assert names([limit("alone", Scope.USER), both]) == ["alone", "both"]


def test_every_form_of_a_subject_means_it_and_no_other_text_does():
    for scope in SCOPES:
        mine = ANN.of(scope)
        for subject in forms(scope, mine):
            if subject != "each,each":
                assert rank(limit("x", scope, subject), mine) > 0, (scope, subject)
    assert rank(limit("x", Pair.USER_MODEL, "ann,b"), ANN.of(Pair.USER_MODEL)) == 0


def test_many_limits_of_pairs_are_found_as_few_are():
    subjects = [EACH, "each,org/a,b", "ann,each", "acme/ann,each", "acme/ann,org/a,b", "bob,each", "each,gpt-4o"]
    many = [limit(f"l{number}", Pair.USER_MODEL, subject) for number, subject in enumerate(subjects * 8)]
    found = indexed(many)
    assert type(found) is not tuple
    assert names(found) == names(many)
    # Where nobody is named, the default.
    assert names(found, Subject("else", "pro", "chat", 0, user_id="zoe", model="m")) == [f"l{7 * n}" for n in range(8)]


def test_what_holds_for_a_pair_is_found_as_its_calls_meet_it():
    limits = [limit("each", Pair.KEY_ROUTE), limit("route", Pair.KEY_ROUTE, "each,chat")]
    standing = [Standing(f"lim_{each.limit.name}", each) for each in limits]
    for mine in ("key_1,chat", "key_1,images"):
        who = Subject("acme", "pro", mine.partition(",")[2], 0, key_id="key_1")
        assert [each.declared.limit.name for each in holding_for(standing, mine, "pro")] == names(limits, who)


def test_is_one_says_which_subjects_have_a_counter():
    assert is_one(Scope.GLOBAL, EACH)
    assert is_one(Pair.USER_MODEL, "acme/ann,gpt-4o")
    for subject in (EACH, "each,gpt-4o", "acme/ann,each", "ann,gpt-4o", "acme/ann"):
        assert not is_one(Pair.USER_MODEL, subject)
    assert is_one(Pair.KEY_ROUTE, "key_1,chat")
    assert not is_one(Scope.USER, "ann")


def test_a_pair_with_a_model_counts_the_model_that_served():
    """Of several that might serve, each is held; see ``holds.settle``."""
    lines = [
        line
        for model in ("dear", "cheap")
        for line in stock_lines(
            PLAN,
            Subject("acme", "pro", "chat", 0, user_id="ann", model=model),
            Bounds(),
            NOON,
            [limit("pair", Pair.USER_MODEL), limit("plain", Pair.USER_ROUTE)],
        )
    ]
    held = holds.held_lines(lines, 0)
    counters = {line.key: CounterRow(0, line.amount) for line in held}
    hold = Hold(held, (), tuple(lines))
    ending = holds.settle(hold, HoldState.OPEN, {"requests": 1_000_000}, PLAN, counters, {}, NOON, model="cheap")
    used = {key.subject: row.used for key, row in ending.counters.items()}
    assert used == {"acme/ann,dear": 0, "acme/ann,cheap": 1_000_000, "acme/ann,chat": 1_000_000}
    assert all(row.held == 0 for row in ending.counters.values())
    counted = holds.counted(ending.hold.lines, "cheap")
    assert [line.key.subject for line in counted] == ["acme/ann,chat", "acme/ann,cheap"] or len(counted) == 2
    assert "acme/ann,dear" not in {line.key.subject for line in counted}


def test_all_scopes_are_listed_once():
    assert len(SCOPES) == len(set(SCOPES)) == len(Scope) + len(Pair)
    pairs = {f"{one},{other}" for one, other in itertools.combinations([each for each in Scope if each != "global"], 2)}
    left_out = pairs - set(Pair)
    # A customer's own, and what a change of plan would begin anew.
    assert left_out == {"customer,user", "customer,agent", "customer,key"} | {
        f"plan,{own}" for own in ("customer", "user", "agent", "key")
    }


def test_a_line_of_a_pair_is_named_in_plain_text():
    (line,) = stock_lines(PLAN, ANN, Bounds(), NOON, [limit("pair", Pair.USER_MODEL)])
    assert line.key == CounterKey("user,model", "acme/ann,org/a,b", "requests", "day", NOON - NOON % 86_400_000)
    assert type(line.key.scope) is str
    assert HeldLine(line.key, "pair", 5, Mode.BLOCK, 1).key.scope == "user,model"
