"""docs/notifications.md: its code is run, its configuration is read, its figures are those of the code."""

import ast
import json
import re
from pathlib import Path

from notifiers_stand import OLD_SECRET, PLANS, ROUTES, SECRET

from gatekeeper.config import parse_gateway
from gatekeeper.notifiers import dispatch
from gatekeeper.notifiers.cloudevents import cloud_event
from gatekeeper.notifiers.signing import is_signed, signed_headers
from gatekeeper.notifiers.webhook import ANSWER_TIMEOUT_S
from gatekeeper.rules.notices import ATTEMPTS_MAX, Event, Kind
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.stores import events

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "notifications.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL))
NOW_S = 1_750_000_000
BODY = '{"name": "Grüße \U0001f680"}'.encode()


def headers(secrets=(SECRET,), timestamp_s=NOW_S):
    return signed_headers("limit_1", timestamp_s, BODY, [secret.removeprefix("whsec_") for secret in secrets])


def test_the_code_of_the_page_verifies_what_is_sent():
    space = {}
    exec(compile(ast.parse(BLOCKS["python"]), "docs/notifications.md", "exec"), space)
    verify = space["verify"]
    assert verify(headers(), BODY, SECRET, NOW_S)
    assert not verify(headers(), BODY + b" ", SECRET, NOW_S)
    assert not verify(headers(), BODY, OLD_SECRET, NOW_S)
    assert verify(headers([SECRET, OLD_SECRET]), BODY, OLD_SECRET, NOW_S)
    assert not verify({**headers(), "webhook-id": "limit_2"}, BODY, SECRET, NOW_S)
    assert not verify(headers(), BODY, SECRET, NOW_S + 301)
    assert not verify(headers(), BODY, SECRET, NOW_S - 301)


def test_our_own_receiver_agrees_with_it():
    key = SECRET.removeprefix("whsec_")
    assert is_signed(headers(), BODY, key, NOW_S)
    assert is_signed(headers([OLD_SECRET, SECRET]), BODY, key, NOW_S + 300)
    for wrong in (
        {"webhook-timestamp": "١"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "1" * 9_999},
        {"webhook-signature": "v1,ü"},
    ):
        assert not is_signed({**headers(), **wrong}, BODY, key, NOW_S)
    assert not is_signed({}, BODY, key, NOW_S)


def test_the_configuration_of_the_page_is_read():
    variables = {"BOOKS_SECRET": SECRET, "SMTP_PASSWORD": "hush"}
    gateway = parse_gateway(ROUTES + BLOCKS["toml"], "gateway.toml", PLANS, variables)
    assert [one.subscription.target for one in gateway.notifications] == ["books", "customers"]
    assert gateway.warnings == ()


def test_the_table_names_every_kind():
    assert re.findall(r"^\| `([a-z.]+)` \|", PAGE, re.MULTILINE) == [kind.short for kind in Kind]


def test_the_example_has_the_fields_that_are_sent():
    shown = json.loads(BLOCKS["json"])
    event = Event(shown["id"], shown["type"], shown["subject"], 1_781_524_800_000, shown["data"])
    assert cloud_event(event, "https://llm.example.com") == shown
    code = (Path(events.__file__).with_name("telling.py")).read_text(encoding="utf-8")
    body = code.partition("def _threshold_content")[2]
    assert re.findall(r'^        "(\w+)":', body, re.MULTILINE) == list(shown["data"])


def test_the_figures_of_the_page_are_those_of_the_code():
    words = " ".join(PAGE.split())
    assert f"tried {ATTEMPTS_MAX} times" in words
    assert f"{ANSWER_TIMEOUT_S:g} s without an answer" in words
    for said, figure in (("forgotten after {} days", events.SENT_KEPT_MS), ("kept for {} days", events.DEAD_KEPT_MS)):
        assert said.format(figure // DAY_MS) in words
    assert dispatch.LEASE_S == 60
