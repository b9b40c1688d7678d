"""The commands that need files only: init, check, plans, try, functions; and what they say of files that are wrong."""

import json
import stat
import tomllib
from pathlib import Path

import pytest

from gatekeeper.cli import init
from gatekeeper.meters import FUNCTIONS

ROOT = Path(__file__).resolve().parents[2]
CHAT = str(ROOT / "tests" / "streams" / "openai_chat_usage.sse")
NO_USAGE = str(ROOT / "tests" / "streams" / "openai_chat_no_usage.sse")


def test_init_writes_what_check_accepts_without_any_environment(cli, folder):
    made = cli("init", "my gateway")
    assert made.code == 0
    assert "cd 'my gateway'" in made.out
    checked = cli("check", "--config", "my gateway/gateway.toml")
    assert checked.code == 0
    assert checked.out.startswith("ok: ")
    assert "4 plans" in checked.out


def test_the_written_secrets_are_for_their_owner_only(gateway):
    written = gateway / ".env"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    (line,) = [line for line in written.read_text().splitlines() if line.startswith("ADMIN_API_KEY=")]
    assert len(line) > 40


def test_init_keeps_what_is_there(cli, gateway):
    (gateway / "plans" / "free.toml").write_text("mine")
    (gateway / "gateway.toml").unlink()
    again = cli("init")
    assert again.code == 0
    assert "wrote gateway.toml" in again.out
    assert "kept plans/free.toml" in again.err
    assert (gateway / "plans" / "free.toml").read_text() == "mine"


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_init_says_where_it_cannot_write(cli, folder, where):
    (folder / "file").touch()
    done = cli("init", where)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: file")


def test_an_installed_package_finds_the_files_that_its_build_puts_there():
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    put = {source: Path(target) for source, target in hatch["force-include"].items()}
    assert put == {
        name: init._SHIPPED.relative_to(ROOT) / name for name in ("gateway.toml.example", "plans")
    }  # what init asks for
    assert all((ROOT / source).exists() for source in put)


@pytest.mark.parametrize(
    "command", [["serve"], ["check"], ["customers", "list"], ["keys", "list"], ["usage", "ada"], ["migrate"]]
)
def test_without_a_configuration_a_newcomer_is_told_what_to_do(cli, command):
    done = cli(*command)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("gateway.toml: error: there is no such file\n")
    assert "gatekeeper init" in done.err
    assert "^" not in done.err


def test_check_tells_everything_with_its_place(cli, gateway):
    path = gateway / "gateway.toml"
    path.write_text(path.read_text().replace("port = 8080", "prt = 8080").replace("[admin]", "[admin]\nkey2 = 1"))
    done = cli("check")
    assert (done.code, done.out) == (2, "")
    assert "did you mean 'port'?" in done.err
    assert done.err.rstrip().endswith("2 mistakes")
    told = json.loads(cli("check", "--json").out)
    errors = [mistake for mistake in told["mistakes"] if mistake["severity"] == "error"]
    assert told["ok"] is False
    assert [mistake["file"] for mistake in errors] == ["gateway.toml"] * 2
    assert all(set(mistake) == {"severity", "message", "file", "line", "column", "hint"} for mistake in errors)
    line = path.read_text().splitlines()[errors[0]["line"] - 1]
    assert line[errors[0]["column"] - 1 :].startswith("prt")


def test_check_is_json_also_without_a_configuration(cli):
    done = cli("check", "--json")
    assert done.code == 2
    assert json.loads(done.out)["mistakes"][0]["message"] == "there is no such file"


def test_check_is_json_also_when_all_is_well(cli, gateway):
    done = cli("check", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert told["ok"] is True
    assert {mistake["severity"] for mistake in told["mistakes"]} == {"warning"}


def test_check_executes_the_examples_of_routes(cli, gateway):
    path = gateway / "gateway.toml"
    path.write_text(path.read_text().replace("units = 87", "units = 88"))
    done = cli("check")
    assert (done.code, done.out) == (2, "")
    assert "the example is worth 88, the meter reads 87 (measured)" in done.err


def test_check_reads_the_recorded_file_of_an_example(cli, gateway):
    with (gateway / "gateway.toml").open("a") as file:
        file.write('\n[[routes.example]]\nfile = "recorded.sse"\nunits = 15\n')
    missing = cli("check")
    assert missing.code == 2
    assert "the example's file cannot be read: No such file or directory" in missing.err
    (gateway / "recorded.sse").write_bytes(Path(CHAT).read_bytes())
    assert cli("check").code == 0


def test_plans_are_a_table_and_json(cli, gateway):
    table = cli("plans").out
    assert "starter     Starter           $29    100,000  $0.002 per unit      10,000" in table.splitlines()
    plans = {plan["id"]: plan for plan in json.loads(cli("plans", "--json").out)}
    assert list(plans) == ["enterprise", "free", "pro", "starter"]
    assert (plans["pro"]["quota"], plans["pro"]["overage_price"]) == ("1000000", "0.001")
    assert plans["enterprise"]["quota"] is None


def test_try_shows_what_is_within_and_what_is_beyond(cli, gateway):
    done = cli("try", CHAT, "--used", "99990", "--json")
    assert done.code == 0
    assert json.loads(done.out) == {
        "units": "15",
        "source": "measured",
        "note": None,
        "charges": [
            {"plan": "enterprise", "charge": "0", "refused": False},
            {"plan": "free", "charge": None, "refused": True},
            {"plan": "pro", "charge": "0", "refused": False},
            {"plan": "starter", "charge": "0.01", "refused": False},
        ],
    }
    lines = cli("try", CHAT, "--used", "99990", "--plan", "starter").out.splitlines()
    assert lines[0] == "usage().total  ->  15, measured"
    assert lines[2].split(maxsplit=2) == ["starter", "$0.01", "5 beyond the 100,000 that are included"]


def test_try_takes_the_meter_of_a_route_or_an_expression(cli, gateway):
    assert json.loads(cli("try", CHAT, "--route", "chat", "--json").out)["units"] == "15"
    weighted = cli("try", CHAT, "--meter", "4 * usage().output", "--json")
    assert json.loads(weighted.out)["units"] == "12"
    assert cli("try", CHAT, "--route", "chat", "--meter", "1").code == 2


def test_try_charges_nothing_on_what_was_not_read(cli, gateway):
    done = cli("try", NO_USAGE, "--plan", "starter")
    assert done.out.startswith("usage().total  ->  nothing, none\n")
    assert "'unmeasured' says what is charged" in done.out


def test_try_works_before_init_with_the_shipped_plans(cli):
    done = cli("try", CHAT, "--plan", "starter", "--json")
    assert done.code == 0
    assert json.loads(done.out)["charges"] == [{"plan": "starter", "charge": "0", "refused": False}]
    assert "no gateway.toml here" in done.err
    assert cli("try", CHAT, "--config", "elsewhere.toml").code == 2


@pytest.mark.parametrize(
    ("given", "hint"),
    [(("--plan", "strter"), "starter"), (("--route", "cht"), "chat"), (("--meter", "usage().totl"), "total")],
)
def test_try_says_what_was_meant(cli, gateway, given, hint):
    done = cli("try", CHAT, *given)
    assert (done.code, done.out) == (2, "")
    assert f"did you mean {hint!r}?" in done.err


def test_functions_lists_the_registry_and_shows_one_with_examples(cli):
    done = cli("functions")
    assert [line for line in done.out.splitlines() if not line.startswith(" ")] == [
        function.signature for function in FUNCTIONS
    ]
    listed = json.loads(cli("functions", "--json").out)
    assert [entry["name"] for entry in listed] == [function.name for function in FUNCTIONS]
    assert all(entry["meaning"] and entry["examples"] for entry in listed)
    assert "sum([])  ->  null" in cli("functions", "sum").out
    wrong = cli("functions", "smu")
    assert (wrong.code, wrong.out) == (2, "")
    assert "did you mean 'sum'?" in wrong.err
