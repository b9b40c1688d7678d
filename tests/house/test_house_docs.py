"""Documentation that cannot lie: what README, docs and deploy show is executed, loaded and compared."""

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from house_files import ROOT, complain, python_files
from house_markdown import Block, agrees, all_blocks, commands, links, pages, tables

from gatekeeper.errors import REFUSALS

RUN_COMMAND = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/gatekeeper demo"
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest"
# What a reader has who stands in a clone; console examples run in a copy, so that they may write.
SHOWN = ("gateway.toml.example", "plans", "examples", "tests/streams")


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def clone(where: Path) -> Path:
    for name in SHOWN:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, where / name)
        elif (ROOT / name).exists():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, where / name)
    return where


def gatekeeper(arguments: list[str], where: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the installed command with both outputs in one; nothing of our own environment reaches it but the path."""
    script = Path(sys.executable).with_name("gatekeeper")
    assert script.exists(), "the command 'gatekeeper' is not installed beside this Python: pip install -e '.[dev]'"
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT") if name in os.environ}
    return subprocess.run(
        [str(script), *arguments],
        cwd=where,
        env={**kept, "HOME": str(where), "COLUMNS": "100", "NO_COLOR": "1", **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
    )


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """The parser's own list, from ``gatekeeper.cli.main.build_parser()``."""
    parser = importlib.import_module("gatekeeper.cli.main").build_parser()
    return below(parser)


def below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a parser by name; aliases count as names."""
    lists = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: found for listed in lists for name, found in listed.choices.items()}


def every_parser(
    commands: dict[str, argparse.ArgumentParser], above: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All commands with the words that lead to them, as ``gatekeeper keys create``."""
    for name, parser in commands.items():
        yield f"{above} {name}", parser
        yield from every_parser(below(parser), f"{above} {name}")


def column(head: str, *others: str) -> list[dict[str, str]]:
    """The rows of all README tables that have these columns."""
    return [row for table in tables(readme()) for row in table if {head, *others} <= row.keys()]


@pytest.mark.parametrize("command", [RUN_COMMAND, TEST_COMMAND], ids=["run", "test"])
def test_the_readme_has_the_two_commands(command):
    shown = [line.strip().removeprefix("$ ") for block in all_blocks() for line in block.text.splitlines()]
    assert command in shown, f"README.md must show, on one line of a fenced block:\n  {command}"


def test_the_build_runs_exactly_the_test_command_of_the_readme():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert TEST_COMMAND in [line.strip() for line in lines]


def test_the_table_of_refusals_is_the_one_in_the_code():
    rows = column("code", "status")
    assert rows, "README.md needs a table with the columns Code and Status that lists every refusal (errors.REFUSALS)"
    shown = [(row["code"], row["status"]) for row in rows]
    expected = [(str(code), str(kind.status)) for code, kind in REFUSALS.items()]
    wrong = [f"not in the code: {row}" for row in shown if row not in expected]
    missing = [f"not in README.md: {row}" for row in expected if row not in shown]
    assert not wrong + missing, complain(wrong + missing, "README's refusals differ from errors.REFUSALS:")
    assert len(shown) == len(expected), "a refusal stands twice in README.md"


def test_the_table_of_commands_is_the_one_of_the_parser():
    rows = column("command")
    assert rows, "README.md needs a table with the column Command that lists every subcommand of gatekeeper"
    shown = sorted({row["command"].removeprefix("gatekeeper ").split()[0] for row in rows})
    assert shown == sorted(subcommands())


def test_every_command_that_is_shown_exists():
    known = subcommands()
    offenders = [
        f"{block.where}: gatekeeper {name}"
        for block in all_blocks()
        for name in re.findall(r"^(?:\$ )?(?:\S*/)?gatekeeper ([a-z]\S*)", block.text, re.MULTILINE)
        if name not in known
    ]
    assert not offenders, complain(offenders, "Examples of commands that do not exist:")


def test_every_command_helps(capsys):
    silent = []
    for name, parser in every_parser(subcommands(), "gatekeeper"):
        with pytest.raises(SystemExit) as left:
            parser.parse_args(["--help"])
        assert left.value.code == 0
        assert name in capsys.readouterr().out
        if not parser.description:
            silent.append(name)
    assert not silent, complain(silent, "Their --help does not say what they do (give the parser a description):")


def test_the_installed_command_helps(tmp_path):
    done = gatekeeper(["--help"], tmp_path, {})
    assert done.returncode == 0, done.stdout
    assert [name for name in subcommands() if name not in done.stdout] == []


def test_every_whole_configuration_that_is_shown_loads(tmp_path):
    example = (ROOT / "gateway.toml.example").read_text(encoding="utf-8")
    whole = [block for block in all_blocks() if block.language == "toml" and block.text.startswith("# gateway.toml\n")]
    offenders = []
    for number, block in enumerate([Block("gateway.toml.example:1", "toml", example), *whole]):
        where = clone(tmp_path / str(number))
        (where / "gateway.toml").write_text(block.text, encoding="utf-8")
        variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", block.text), "example-value")
        done = gatekeeper(["check"], where, variables)
        if done.returncode != 0:
            offenders.append(f"{block.where}\n{done.stdout}")
    assert not offenders, complain(offenders, "These do not pass 'gatekeeper check':")


def test_every_console_example_prints_what_it_shows(tmp_path):
    """Blocks marked ``console-run``: each runs in a copy of its own, so what one writes the next does not see.

    ``$ export NAME=value`` sets a variable for the rest of the block; ``...`` stands for anything.
    """
    examples = [block for block in all_blocks() if block.language == "console-run"]
    assert examples, "README.md needs examples in blocks marked ```console-run"
    offenders = []
    for number, block in enumerate(examples):
        where = clone(tmp_path / str(number))
        variables: dict[str, str] = {}
        for command in commands(block):
            program, *arguments = shlex.split(command.line)
            if program == "export":
                variables.update(argument.split("=", 1) for argument in arguments)
                continue
            assert program == "gatekeeper", f"{command.where}: only gatekeeper and export can be run, not {program}"
            printed = gatekeeper(arguments, where, variables).stdout
            if not agrees(command.shown, printed):
                offenders.append(
                    f"{command.where} $ {command.line}\n--- shown\n{command.shown}\n--- printed\n{printed}"
                )
    assert not offenders, complain(offenders, "Examples that print something else:")


def test_every_link_leads_somewhere():
    offenders = [
        f"{page.relative_to(ROOT).as_posix()}: {target}"
        for page in pages()
        for target in links(page.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|#", target) and not (page.parent / target.split("#")[0]).exists()
    ]
    assert not offenders, complain(offenders, "Links to files that do not exist:")


def test_every_test_that_the_table_of_http_names_exists():
    page = (ROOT / "docs" / "http.md").read_text()
    rows = re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    assert rows == [str(number) for number in range(1, 27)]
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 40
    written = {name for path in python_files("tests") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert sorted(named - written) == []
