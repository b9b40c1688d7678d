"""Limits and spend at the command line: what is set there beats the file until it is removed, and check says so."""

import json
import sqlite3

import pytest

SET = ("limits", "set", "--scope", "customer", "--subject", "ada")


@pytest.fixture
def ada(cli, gateway):
    assert cli("customers", "create", "Ada", "--id", "ada", "--plan", "starter").code == 0
    return gateway


def rows(cli, *more: str) -> list[dict]:
    done = cli("limits", "list", "--json", *more)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_limit_is_set_changed_reset_and_removed(cli, ada):
    made = json.loads(cli(*SET, "--dollars", "5", "--window", "day", "--json").out)
    assert (made["cap"], made["mode"], made["from"], made["state"]["used"]) == ("5", "block", "admin", "0")
    changed = json.loads(cli(*SET, "--dollars", "7.50", "--window", "day", "--mode", "warn", "--json").out)
    assert (changed["id"], changed["cap"], changed["mode"], changed["version"]) == (made["id"], "7.5", "warn", 2)
    assert "ada count from 0 again" in cli("limits", "reset", made["id"], "--reason", "a gift").out
    assert made["id"] in [row["id"] for row in rows(cli)]
    assert "nothing holds in its place" in cli("limits", "remove", made["id"]).out
    assert made["id"] not in [row["id"] for row in rows(cli)]
    assert cli("limits", "remove", made["id"]).code == 1


def test_what_holds_for_a_customer_is_listed_with_where_it_comes_from(cli, ada):
    assert cli(*SET, "--requests", "1_000", "--window", "month").code == 0
    assert cli("limits", "set", "--scope", "customer", "--requests", "60", "--per", "minute").code == 0
    found = {row["name"]: row for row in rows(cli, "--scope", "customer", "--subject", "ada")}
    assert {row["from"] for row in found.values()} >= {"plan", "admin"}
    shown = cli("limits", "list", "--scope", "customer", "--subject", "ada").out
    assert "admin-customer-ada-requests-month" in shown
    assert "plan starter" in shown
    assert "requests per 60 s" in shown


def test_a_declared_limit_is_changed_and_comes_back(cli, ada):
    file = ada / "gateway.toml"
    file.write_text(file.read_text() + '\n[[limits]]\nscope = "agent"\nrequests = 9\nwindow = "hour"\n')
    done = cli("limits", "set", "--scope", "agent", "--requests", "unlimited", "--window", "hour", "--json")
    made = json.loads(done.out)
    assert (made["cap"], made["declared"]) == (None, {"cap": "9", "mode": "block", "from": "file"})
    removed = cli("limits", "remove", made["id"])
    assert "what the file says holds again" in removed.out
    assert cli("limits", "remove", made["id"]).code == 1


def test_check_lists_what_operators_have_set_and_works_without_a_database(cli, ada, folder):
    before = cli("check")
    assert (before.code, "operators" in before.out) == (0, False)
    made = json.loads(cli(*SET, "--dollars", "5", "--window", "day", "--json").out)
    told = cli("check")
    assert told.code == 0
    assert f"  {made['id']}  customer ada: 5 dollars per day (block, admin-customer-ada-dollars-day)" in told.out
    assert json.loads(cli("check", "--json").out)["overlays"] == [made["id"]]
    (database,) = folder.glob("**/*.sqlite")
    database.write_bytes(b"this is no database")
    for other in folder.glob("**/*.sqlite-*"):
        other.unlink()
    assert (cli("check").code, cli("check").out) == (0, before.out)
    database.unlink()
    assert (cli("check").code, cli("check").out) == (0, before.out)
    assert not database.exists()


def test_spend_is_shown_by_day_and_by_model(cli, ada, folder):
    (database,) = folder.glob("**/*.sqlite")
    with sqlite3.connect(database) as connection:
        for number, model in enumerate(("gpt-4o", "gpt-4o", "o3")):
            connection.execute(
                "INSERT INTO usage_record (call_id, admitted_month, customer_id, plan_id, route, upstream, model,"
                " method, path, outcome, streamed, started_ms, ended_ms, units_micro, source, charge_nano, cost_nano,"
                " meters, evidence, meter_hash, request_bytes, response_bytes, overrun_micro, day, lines)"
                " VALUES (?, '2026-06', 'ada', 'starter', 'chat', 'openai', ?, 'POST', '/', 'complete', 0,"
                " 1781524800000, 1781524800000, 2000000, 'measured', 4000000, ?, '{}', '{}', '', 0, 0, 0,"
                " '2026-06-15', '[]')",
                (f"c{number}", model, None if model == "o3" else 1_000_000),
            )
    connection.close()
    span = ("--start", "2026-06-01", "--end", "2026-06-30")
    shown = cli("spend", "--by", "model", *span)
    assert shown.code == 0
    assert [line.split() for line in shown.out.splitlines()][1:4] == [
        ["gpt-4o", "2", "4", "0.008", "0.002", "0.006"],
        ["o3", "1", "2", "0.004", "0", "0.004"],
        ["sum", "3", "6", "0.012", "0.002", "0.01"],
    ]
    assert "1 requests have no known cost" in shown.out
    told = json.loads(cli("spend", *span, "--json", "--scope", "customer", "--subject", "ada").out)
    assert [(row["day"], row["requests"]) for row in told["rows"]] == [("2026-06-15", 3)]
    assert json.loads(cli("spend", *span, "--json", "--scope", "customer", "--subject", "eve").out)["rows"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        (*SET, "--dollars", "x", "--window", "day"),
        (*SET, "--dollars", "5"),
        (*SET, "--window", "day"),
        (*SET, "--dollars", "5", "--units", "5", "--window", "day"),
        (*SET, "--dollars", "5", "--window", "day", "--per", "minute"),
        (*SET, "--dollars", "5", "--meter", "m", "--window", "day"),
        (*SET, "--units", "5", "--meter", "none", "--window", "day"),
        ("limits", "set", "--scope", "customer", "--subject", "eve", "--units", "5", "--window", "day"),
        ("limits", "set", "--scope", "galaxy", "--units", "5", "--window", "day"),
        ("limits", "list", "--subject", "ada"),
        ("limits",),
        ("spend", "--by", "colour"),
        ("spend", "--scope", "customer"),
        ("spend", "--start", "x"),
    ],
)
def test_what_cannot_be_meant_is_told_with_code_2(cli, ada, arguments):
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err
