"""Makes `_tables.py` from `grammar.lark`: run `python -m gatekeeper.meters.generate` after a change to the grammar.

The rule: the grammar is LALR(1) without one conflict; a conflict raises here, so it cannot be shipped.
"""

import json
from pathlib import Path
from typing import Any

from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef
from lark.parsers.lalr_analysis import LALR_Analyzer

ROOM = Path(__file__).parent
GRAMMAR = ROOM / "grammar.lark"
TABLES = ROOM / "_tables.py"

HEAD = '''"""Parser tables made from grammar.lark by `python -m gatekeeper.meters.generate`. Do not edit."""

# JSON in a string: Python literals of this size take 100 ms to compile where no .pyc may be written.
TABLES = r"""
'''
TAIL = '''
"""
'''


def build() -> Lark:
    """The parser, straight from the grammar. Raises lark.GrammarError on any conflict."""
    parser = Lark(
        GRAMMAR.read_text("utf-8"), parser="lalr", lexer="basic", propagate_positions=True, maybe_placeholders=False
    )
    analyzer: Any = LALR_Analyzer(parser.parser.parser_conf, strict=True)
    analyzer.compute_lalr()
    return parser


def tables() -> str:
    """The text of `_tables.py`, the same for the same grammar whatever the seed of the hashes."""
    contents, memo = build().memo_serialize([TerminalDef, Rule])
    contents["parser"]["parser"] = _renumbered(contents["parser"]["parser"])
    lines = [json.dumps(contents)] + [json.dumps(entry) for _, entry in sorted(memo.items())]
    assert list(memo) == list(range(len(memo)))
    assert not any('"""' in line for line in lines)
    return HEAD + "\n".join(lines) + TAIL


def _renumbered(table: dict[str, Any]) -> dict[str, Any]:
    """The parse table with its symbols in alphabetical order and its states in the order of a walk from the start.

    Lark numbers them in the order of sets, which changes from run to run.
    """
    names = sorted(table["tokens"].values())
    number = {old: names.index(name) for old, name in table["tokens"].items()}
    states = {
        state: {number[symbol]: action for symbol, action in row.items()} for state, row in table["states"].items()
    }
    order = list(table["start_states"].values())
    for state in order:
        for _, (kind, target) in sorted(states[state].items()):
            if kind == 0 and target not in order:
                order.append(target)
    place = {state: index for index, state in enumerate(order)}
    return {
        **table,
        "tokens": dict(enumerate(names)),
        "states": {
            place[state]: {
                symbol: (kind, place[target] if kind == 0 else target)
                for symbol, (kind, target) in sorted(states[state].items())
            }
            for state in order
        },
        "start_states": {name: place[state] for name, state in table["start_states"].items()},
        "end_states": {name: place[state] for name, state in table["end_states"].items()},
    }


if __name__ == "__main__":
    TABLES.write_text(tables(), "utf-8")
