"""Makes docs/functions.md from the registry: run `python -m gatekeeper.meters.reference` after a change to a function.

The rule: nothing in that file is written by hand, so it cannot say what the code does not do.
"""

from pathlib import Path

from gatekeeper.meters.functions import FUNCTIONS, Example, Function

REFERENCE = Path(__file__).parents[2] / "docs" / "functions.md"
_HEAD = """\
# Functions of the metering language

<!-- Made by `python -m gatekeeper.meters.reference`; a test executes every example and compares this file. -->

How expressions are written: [expressions.md](expressions.md). The same table in a terminal: `gatekeeper functions`.
In a signature `xs` is a stream or a list, `f` a function of an item (`.json.usage.total_tokens`, `#`, `e => e.n`, or a
path as a string), `p` a test of an item, and `[...]` may be left out. Arguments that are null make the result null,
unless the meaning says otherwise.

| function | meaning | examples |
|---|---|---|
"""


def reference() -> str:
    """The whole text of docs/functions.md."""
    bodies: dict[str, str] = {}
    rows = [_row(function, bodies) for function in FUNCTIONS]
    shown = "".join(f"\nThe answer {name}:\n\n```\n{body.rstrip()}\n```\n" for body, name in bodies.items())
    return _HEAD + "".join(rows) + shown


def _row(function: Function, bodies: dict[str, str]) -> str:
    examples = "<br>".join(_example(example, bodies) for example in function.examples)
    return f"| {_code(function.signature)} | {_cell(function.sentence)} | {examples} |\n"


def _example(example: Example, bodies: dict[str, str]) -> str:
    over = ""
    if example.body is not None:
        over = " over " + bodies.setdefault(example.body, chr(ord("A") + len(bodies)))
    return f"{_code(example.expression)} is {_code(example.result)}{over}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{_cell(text)}{fence}"


if __name__ == "__main__":
    REFERENCE.parent.mkdir(exist_ok=True)
    REFERENCE.write_text(reference(), "utf-8")
