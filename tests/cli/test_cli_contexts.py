"""check and explain over a route whose expressions stand in every place."""

import sqlite3

import httpx
from fakes.origin import replays
from fakes.stand import PLANS, gateway_text, running

ANSWER = b'{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"cost":0.0002}}'
EVERYWHERE = """
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "origin"
when = "request.stream != true"
estimate = "requestBytes + 100"
live = "count(events)"
cost = "usage().cost * 2"
[[routes.example]]
body = '{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
units = 7
[[routes]]
name = "streams"
path = "/v1/chat/completions"
upstream = "origin"
"""


def written(folder, routes):
    (folder / "plans").mkdir(exist_ok=True)
    for name, plan in PLANS.items():
        (folder / "plans" / name).write_text(plan)
    text = gateway_text(f"sqlite:///{folder}/gateway.sqlite", 1, routes)
    (folder / "gateway.toml").write_text(text)
    return text


def test_check_takes_them_all_and_still_executes_the_examples(cli, folder):
    written(folder, EVERYWHERE)
    done = cli("check")
    assert (done.code, done.err) == (0, "")
    assert "1 examples executed" in done.out
    written(folder, EVERYWHERE.replace("units = 7", "units = 8"))
    assert cli("check").code == 2


def test_check_shows_where_each_of_them_is_wrong(cli, folder):
    wrong = EVERYWHERE.replace("request.stream != true", "requestBytes").replace("count(events)", "len(allData)")
    written(folder, wrong)
    done = cli("check")
    assert done.code == 2
    lines = done.err.splitlines()
    carets = {lines[at - 1].strip(): lines[at].strip() for at, line in enumerate(lines) if set(line.strip()) == {"^"}}
    assert carets == {'when = "requestBytes"': "^" * 12, 'live = "len(allData)"': "^" * 12}


def test_explain_shows_what_cost_has_read(cli, folder):
    written(folder, EVERYWHERE)
    with running(folder, replays(ANSWER, "application/json"), routes=EVERYWHERE) as stand:
        headers = {"Authorization": f"Bearer {stand.key}"}
        assert httpx.post(stand.url + "/v1/chat/completions", json={"messages": []}, headers=headers).status_code == 200
        call_id = stand.record().call_id
    done = cli("explain", call_id)
    assert (done.code, done.err) == (0, "")
    assert "usage().cost * 2  [" in done.out
    assert "$0.0004, measured" in done.out
    assert "$0.0004 at the provider; again: the same" in done.out
    with sqlite3.connect(folder / "gateway.sqlite") as database:
        database.execute("UPDATE usage_record SET cost_nano = 500000")
    database.close()
    done = cli("explain", call_id)
    assert "NOT the same" in done.out
    assert "the evidence of 'cost' gives $0.0004, the record has $0.0005" in done.out
