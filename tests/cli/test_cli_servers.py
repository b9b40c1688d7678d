"""demo and serve as processes of their own: they say where they are, do what they say, and stop when they are told."""

import json
import re
import shlex
import signal
import socket
import subprocess
from typing import Any

import httpx
import pytest

from gatekeeper.cli.main import build_parser

STOPS_WITHIN_S = 20


def read_until(stream, pattern: str) -> str:
    """All that is printed up to a line that matches."""
    said = ""
    while not re.search(pattern, said):
        line = stream.readline()
        assert line, f"it ended without saying {pattern!r}:\n{said}"
        said += line
    return said


def stopped(running: "subprocess.Popen[str]", how: signal.Signals, *, with_output: bool = False) -> tuple[Any, ...]:
    """Its exit code, what it still had to complain about, and what else it still said."""
    running.send_signal(how)
    said, complaints = running.communicate(timeout=STOPS_WITHIN_S)
    return (running.returncode, complaints, said) if with_output else (running.returncode, complaints)


def request_of(line: str) -> httpx.Request:
    """The request that a curl line makes."""
    program, *words = shlex.split(line)
    assert program == "curl"
    url, headers, body = "", {}, None
    while words:
        word = words.pop(0)
        if word == "-H":
            name, value = words.pop(0).split(": ", 1)
            headers[name] = value
        elif word == "-d":
            body = words.pop(0)
        elif word != "-N":
            url = word
    return httpx.Request("GET" if body is None else "POST", url, headers=headers, content=body)


def curl_lines(said: str) -> list[str]:
    return re.findall(r"^ +(curl .*)$", said.replace("\\\n", ""), re.MULTILINE)


def test_the_curl_line_of_the_demo_works_and_is_charged_as_foretold(process):
    with process("demo", "--port", "0", "--tokens-per-s", "0") as running:
        said = read_until(running.stdout, "Ctrl-C ends it")
        foretold = re.search(r"will be charged (\d+) tokens \((\d+) in, (\d+) out\): \$(\S+) while", said)
        ask, usage, requests, preview = map(request_of, curl_lines(said))
        with httpx.Client() as client:
            answer = client.send(ask)
            assert answer.status_code == 200
            assert answer.text.endswith("data: [DONE]\n\n")
            used = client.send(usage).json()
            (record,) = client.send(requests).json()["requests"]
            ours = client.send(preview).json()["ours"]
        assert record["units"] == foretold[1]
        assert (record["usage"]["input"], record["usage"]["output"]) == (int(foretold[2]), int(foretold[3]))
        assert (record["charge"], record["source"], record["outcome"]) == (foretold[4], "measured", "complete")
        assert (used["tokens_used"], used["requests"]) == (int(foretold[1]), 1)
        assert (ours["used_units"], ours["total_cents"]) == (foretold[1], 2_900)
        code, complaints, last = stopped(running, signal.SIGINT, with_output=True)
        assert (code, complaints) == (0, "")
    # The invoice, and what Stripe would have been told of it.
    assert f"Used {foretold[1]} units; 100,000 are included." in last
    assert "Total              $29  (an invoice rounds it to 2900 cents)" in last
    (line,) = [json.loads(line) for line in re.findall(r"^  (\{.*\})$", last, re.MULTILINE)]
    assert (line["customer_id"], line["units"], line["late"]) == ("demo", foretold[1], False)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("free", "$0 while within the 10,000 that plan Free includes."),
        ("pro", "$0 while within the 1,000,000 that plan Pro includes, $0.051 beyond them."),
        ("enterprise", "$0, plan Enterprise includes all."),
    ],
)
def test_the_demo_takes_another_plan_and_keeps_its_file(process, folder, plan, said):
    kept = folder / "below" / "demo.sqlite"
    with process("demo", "--port", "0", "--plan", plan, "--database", str(kept)) as running:
        assert said in read_until(running.stdout, "Ctrl-C ends it")
        assert stopped(running, signal.SIGTERM) == (0, "")
    assert kept.stat().st_size > 0
    # Nothing was used, so nothing was told.
    assert not kept.with_suffix(".paper.jsonl").exists()


def test_the_demo_knows_its_plans(process):
    with process("demo", "--port", "0", "--plan", "gold") as running:
        out, complaints = running.communicate(timeout=STOPS_WITHIN_S)
    assert (running.returncode, out) == (2, "")
    assert complaints == "error: There is no plan 'gold'; there are: enterprise, free, pro, starter.\n"


@pytest.mark.parametrize("command", ["demo", "serve"])
def test_a_port_that_is_taken_is_said(process, gateway, command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(command, "--port", str(port)) as running:
            out, complaints = running.communicate(timeout=STOPS_WITHIN_S)
    assert (running.returncode, out) == (1, "")
    assert f"error: cannot listen on 127.0.0.1:{port}: Address already in use\nhint: --port" in complaints
    assert "Traceback" not in complaints


@pytest.mark.parametrize(
    "given", [("demo", "--port", "65536"), ("serve", "--port", "-1"), ("demo", "--tokens-per-s", "nan")]
)
def test_flags_of_servers_are_checked_before_anything_starts(cli, given):
    done = cli(*given)
    assert (done.code, done.out) == (2, "")
    assert given[1] in done.err


def test_serve_works_right_after_init_and_stops_cleanly(cli, process, gateway):
    cli("customers", "create", "Ada", "--id", "ada")
    key = json.loads(cli("keys", "create", "ada", "--json").out)["key"]
    with process("serve", "--port", "0") as running:
        url = re.search(r"listening on (\S+) with", read_until(running.stderr, "listening on"))[1]
        assert httpx.get(f"{url}/readyz").json() == {"ready": True}
        used = httpx.get(f"{url}/v1/usage", headers={"Authorization": f"Bearer {key}"})
        assert (used.status_code, used.json()["plan"]) == (200, "free")
        code, complaints = stopped(running, signal.SIGTERM)
    assert (code, complaints) == (0, "")


def test_a_reload_takes_a_good_file_and_refuses_a_broken_one(process, gateway):
    admin = {"X-Admin-Key": re.search("^ADMIN_API_KEY=(.+)$", (gateway / ".env").read_text(), re.MULTILINE)[1]}
    plan, config = gateway / "plans" / "free.toml", gateway / "gateway.toml"
    with process("serve", "--port", "0") as running:
        url = re.search(r"listening on (\S+) with", read_until(running.stderr, "listening on"))[1]

        def free_plan() -> str:
            plans = httpx.get(f"{url}/admin/plans", headers=admin).json()["plans"]
            return next(plan["name"] for plan in plans if plan["id"] == "free")

        assert free_plan() == "Free"
        plan.write_text(plan.read_text().replace('name = "Free"', 'name = "Gratis"', 1))
        running.send_signal(signal.SIGHUP)
        read_until(running.stderr, r"reloaded: generation \w+, 12 routes, 4 plans")
        assert free_plan() == "Gratis"

        plan.write_text(plan.read_text().replace("Gratis", "Broken"))
        config.write_text(config.read_text() + "\nnonsense =\n")
        running.send_signal(signal.SIGHUP)
        said = read_until(running.stderr, r"gateway.toml:\d+:\d+: error")
        assert "not reloaded, the old configuration stays" in said
        assert free_plan() == "Gratis"
        assert stopped(running, signal.SIGINT)[0] == 0


def test_a_reader_that_has_seen_enough_is_no_error(process):
    with process("functions", "--json") as running:
        running.stdout.close()
        assert running.wait(STOPS_WITHIN_S) == 0
        assert running.stderr.read() == ""


def test_the_version_and_the_commands_are_told(cli):
    assert re.fullmatch(r"gatekeeper \d+\.\d+\.\d+\n", cli("--version").out)
    assert cli().code == 2
    unknown = cli("serv")
    assert (unknown.code, unknown.out) == (2, "")
    assert "'serve'" in unknown.err
    assert build_parser().format_help() == cli("--help").out


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"STRIPE_SECRET_KEY": ""}, "its secret key is empty"),
        ({"STRIPE_SECRET_KEY": "sk_test_0123456789", "STRIPE_WEBHOOK_SECRET": "whsec_0123456789,"}, "none is empty"),
        ({"STRIPE_SECRET_KEY": "sk_test_0123456789", "STRIPE_WEBHOOK_SECRET": "  "}, "none is empty"),
    ],
)
def test_with_an_empty_secret_of_stripe_nothing_is_served(process, gateway, monkeypatch, variables, said):
    """Pitfall 42: an empty secret would verify whatever anybody signs with nothing."""
    for name, value in {"STRIPE_METERING_ENABLED": "true", **variables}.items():
        monkeypatch.setenv(name, value)
    with process("serve", "--port", "0") as running:
        out, complaints = running.communicate(timeout=STOPS_WITHIN_S)
    assert (running.returncode, out) == (2, "")
    assert said in complaints
