"""customers, keys, usage, migrate: what they print, what they refuse, and that no secret is shown twice."""

import json
import sqlite3

import pytest

from gatekeeper.cli.accounts import parse_expiry
from gatekeeper.errors import Refusal
from gatekeeper.rules.keys import well_formed

DAY_MS = 86_400_000
pytestmark = pytest.mark.usefixtures("gateway")


@pytest.fixture
def ada(cli):
    """A customer."""
    assert cli("customers", "create", "Ada Lovelace", "--id", "ada", "--plan", "starter").code == 0


def customers(cli) -> list[dict]:
    return json.loads(cli("customers", "list", "--json").out)


def test_a_customer_is_made_on_the_default_plan_with_an_id_of_our_own(cli):
    made = json.loads(cli("customers", "create", "Ada", "--email", "ada@example.com", "--json").out)
    assert made["id"].startswith("cus_")
    assert (made["plan"], made["email"], made["disabled"]) == ("free", "ada@example.com", False)
    assert customers(cli) == [made]


def test_customers_are_a_table(cli, ada):
    assert cli("customers", "list").out.splitlines() == [
        "ID   NAME          PLAN     STATE",
        "ada  Ada Lovelace  starter  active",
    ]


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("create", "Bob", "--plan", "strter"), 2, "did you mean 'starter'"),
        (("create", "Bob", "--id", "../bob"), 2, "id is 1 to 64"),
        (("create", "Bob", "--email", "bob"), 2, "email"),
        (("create", " "), 2, "name"),
        (("create", "Ada", "--id", "ada"), 1, "already"),
        (("set-plan", "ada", "gold"), 2, "there are: enterprise, free, pro, starter"),
        (("set-plan", "bob", "free"), 1, "gatekeeper customers list"),
        (("disable", "bob"), 1, "no customer 'bob'"),
        ((), 2, "ACTION"),
        (("remove", "ada"), 2, "'remove'"),
    ],
)
def test_what_cannot_be_done_to_customers_is_said(cli, ada, given, code, said):
    done = cli("customers", *given)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert [customer["id"] for customer in customers(cli)] == ["ada"]


def test_plan_and_state_of_a_customer_change(cli, ada):
    assert json.loads(cli("customers", "set-plan", "ada", "pro", "--json").out)["plan"] == "pro"
    assert json.loads(cli("customers", "disable", "ada", "--json").out)["disabled"] is True
    assert "disabled" in cli("customers", "list").out
    assert json.loads(cli("customers", "enable", "ada", "--json").out)["disabled"] is False
    assert customers(cli)[0]["plan"] == "pro"


def test_a_key_is_shown_once(cli, ada):
    secret = cli("keys", "create", "ada", "--name", "laptop").out.splitlines()[-1]
    assert well_formed(secret)
    listed = cli("keys", "list")
    assert secret not in listed.out
    assert "laptop" in listed.out
    assert "active" in listed.out
    assert secret not in cli("keys", "list", "--json").out


def test_a_key_carries_what_was_asked_for(cli, ada):
    given = ("--route", "chat", "--route", "messages", "--model", "gpt-4o*", "--user", "u1", "--agent", "a1")
    made = json.loads(cli("keys", "create", "ada", *given, "--may-assert", "--expires", "30d", "--json").out)
    assert well_formed(made["key"])
    assert (made["routes"], made["models"]) == (["chat", "messages"], ["gpt-4o*"])
    assert (made["user_id"], made["agent_id"], made["may_assert"]) == ("u1", "a1", True)
    assert made["expires_ms"] - made["created_ms"] == pytest.approx(30 * DAY_MS, abs=60_000)
    (listed,) = json.loads(cli("keys", "list", "ada", "--json").out)
    assert "key" not in listed
    assert listed == {name: value for name, value in made.items() if name != "key"}


def test_a_revoked_key_is_listed_as_such(cli, ada):
    made = json.loads(cli("keys", "create", "ada", "--json").out)
    assert json.loads(cli("keys", "revoke", made["id"], "--json").out)["revoked_ms"] is not None
    assert "revoked" in cli("keys", "list", "ada").out


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("create", "bob"), 1, "no customer 'bob'"),
        (("create", "ada", "--expires", "soon"), 2, "30d"),
        (("create", "ada", "--expires", "2001-01-01"), 2, "expired already"),
        (("create", "ada", "--route", "cht"), 2, "no route 'cht'"),
        (("create", "ada", "--user", "a b"), 2, "user_id"),
        (("list", "bob"), 1, "no customer 'bob'"),
        (("revoke", "key_1"), 1, "gatekeeper keys list"),
    ],
)
def test_what_cannot_be_done_to_keys_is_said(cli, ada, given, code, said):
    done = cli("keys", *given)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert json.loads(cli("keys", "list", "--json").out) == []


@pytest.mark.parametrize(
    ("text", "expected_ms"), [("90m", 90 * 60_000), ("12h", DAY_MS // 2), ("30d", 30 * DAY_MS), ("1970-01-03", -DAY_MS)]
)
def test_an_expiry_is_a_span_or_a_day(text, expected_ms):
    now_ms = 3 * DAY_MS
    assert parse_expiry(text, now_ms) == now_ms + expected_ms


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1970-13-01", "30 d"])
def test_another_expiry_is_refused(text):
    with pytest.raises(Refusal):
        parse_expiry(text, 0)


def test_usage_of_a_customer_who_used_nothing(cli, ada):
    assert cli("usage", "ada").out.splitlines()[-1].split() == ["sum", "0", "0", "0"]
    told = json.loads(cli("usage", "ada", "--period", "last_30_days", "--json").out)
    assert (told["customer"], told["tokens_used"], told["requests"], told["days"]) == ("ada", 0, 0, [])


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("bob",), 1, "no customer 'bob'"),
        (("ada", "--start", "tomorrow"), 2, "YYYY-MM-DD"),
        (("ada", "--start", "2026-02-02", "--end", "2026-02-01"), 2, "before"),
        (("ada", "--period", "last_30_days", "--end", "2026-02-01"), 2, "not both"),
        (("ada", "--period", "always"), 2, "last_30_days"),
    ],
)
def test_usage_that_cannot_be_asked_for_is_said(cli, ada, given, code, said):
    done = cli("usage", *given)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_migrate_makes_the_database_beside_the_configuration(cli, gateway):
    assert cli("migrate").out == "The database is at the present schema.\n"
    assert (gateway / "gatekeeper.sqlite").stat().st_size > 0


def test_a_database_that_is_newer_is_left_alone(cli, gateway):
    cli("migrate")
    with sqlite3.connect(gateway / "gatekeeper.sqlite") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(schema_migration)")]
        (row,) = database.execute("SELECT * FROM schema_migration LIMIT 1").fetchall()
        newer = {**dict(zip(columns, row, strict=True)), "number": 99, "name": "later"}
        marks = ", ".join("?" * len(newer))
        database.execute(f"INSERT INTO schema_migration ({', '.join(newer)}) VALUES ({marks})", list(newer.values()))
    database.close()
    for command in (["migrate"], ["customers", "list"]):
        done = cli(*command)
        assert (done.code, done.out) == (1, "")
        assert "install the newer gatekeeper" in done.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///nowhere/gatekeeper.sqlite", "No such file or directory"),
        ("sqlite:///plans", "unable to open"),
        ("postgresql://someone:a-secret@127.0.0.1:1/gatekeeper", "Postgres"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_without_its_password(cli, monkeypatch, url, said):
    monkeypatch.setenv("DATABASE_URL", url)
    done = cli("migrate")
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert "DATABASE_URL" in done.err
    assert "a-secret" not in done.err


def test_a_database_that_cannot_be_meant_is_a_mistake(cli, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "mysql://127.0.0.1/x")
    done = cli("migrate")
    assert (done.code, done.out) == (2, "")
    assert "<environment>" in done.err
