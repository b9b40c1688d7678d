"""Operators by the command line, and that what it changes stands in the audit log."""

import json
import re
import signal
import sqlite3

import httpx
import pytest


def deeds(gateway):
    connection = sqlite3.connect(gateway / "gatekeeper.sqlite")
    try:
        return connection.execute("SELECT actor, action, subject, state, detail FROM deed ORDER BY id").fetchall()
    finally:
        connection.close()


def test_an_operator_is_added_linked_listed_and_disabled(cli, gateway):
    added = cli("operators", "add", "Ada@example.com", "--role", "admin")
    assert added.code == 0
    assert re.search(r"\nhttp://127\.0\.0\.1:8080/dashboard/first\?link=[A-Za-z0-9_-]{43}\n$", added.out)
    made = json.loads(cli("operators", "link", "ada@example.com", "--json").out)
    assert (made["email"], made["role"], made["password"]) == ("ada@example.com", "admin", False)
    assert made["link"] not in added.out
    assert "no password yet" in cli("operators", "list").out
    (row,) = json.loads(cli("operators", "list", "--json").out)
    assert row["id"] == made["id"]
    assert json.loads(cli("operators", "disable", "ada@example.com", "--json").out)["disabled"]
    refused = cli("operators", "link", "ada@example.com")
    assert (refused.code, "disabled" in refused.err) == (1, True)
    assert not json.loads(cli("operators", "enable", "ada@example.com", "--json").out)["disabled"]
    for wrong in (("add", "ada@example.com"), ("link", "else@example.com"), ("disable", "else@example.com")):
        assert cli("operators", *wrong).code == 1, wrong
    for wrong in (("add", "nobody"), ("link", "nobody")):
        assert cli("operators", *wrong).code == 2, wrong
    assert cli("operators", "add", "x@example.com", "--role", "king").code == 2


def test_what_the_command_line_changes_is_on_record_and_its_secrets_are_not(cli, gateway):
    cli("customers", "create", "Acme", "--id", "acme")
    key = json.loads(cli("keys", "create", "acme", "--json").out)
    cli("keys", "revoke", key["id"])
    cli("customers", "disable", "acme")
    limit = json.loads(cli("limits", "set", "--scope", "customer", "--units", "5", "--window", "day", "--json").out)
    cli("limits", "remove", limit["id"])
    link = json.loads(cli("operators", "add", "o@example.com", "--json").out)["link"]
    assert cli("keys", "create", "nobody").code == 1
    found = deeds(gateway)
    assert {row[0] for row in found} == {"cli"}
    assert [(row[1], row[3]) for row in found] == [
        ("gatekeeper customers create", "done"),
        ("gatekeeper keys create", "done"),
        ("gatekeeper keys revoke", "done"),
        ("gatekeeper customers disable", "done"),
        ("gatekeeper limits set", "done"),
        ("gatekeeper limits remove", "done"),
        ("gatekeeper operators add", "done"),
        ("gatekeeper keys create", "refused"),
    ]
    assert [row[2] for row in found[:4]] == ["acme", key["id"], key["id"], "acme"]
    text = json.dumps(found)
    assert key["key"] not in text
    assert link.rpartition("=")[2] not in text


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_serve_prints_a_link_for_the_first_owner_once_and_not_into_the_log(process, gateway, workers):
    with process("serve", "--port", "0", *workers) as running:
        line = running.stdout.readline() + running.stdout.readline()
        url = re.search(r"(http://127\.0\.0\.1:\d+)/dashboard/first\?link=([A-Za-z0-9_-]{43})\n", line)
        assert url, line
        with httpx.Client(transport=httpx.HTTPTransport(retries=20), timeout=20) as browser:
            page = browser.get(url[0].strip(), follow_redirects=True)
            assert page.status_code == 200
            assert "Become the owner" in page.text
            assert url[2] not in page.text + str(page.url)
            fields = {"email": "o@example.com", "password": "correct horse battery", "again": "correct horse battery"}
            done = browser.post(f"{url[1]}/dashboard/first", data=fields)
            assert (done.status_code, done.headers["location"]) == (303, "/dashboard")
            assert browser.get(f"{url[1]}/dashboard").status_code == 200
        running.send_signal(signal.SIGTERM)
        more, log = running.communicate(timeout=30)
    assert "link=" not in more
    assert url[2] not in log
    with process("serve", "--port", "0") as running:
        while "listening" not in running.stderr.readline():
            pass
        running.send_signal(signal.SIGTERM)
        assert "link=" not in running.communicate(timeout=30)[0]
