"""The statements of the store, read from .sql files: a name, a sentence, the text. The rule: no SQL in Python code.

Two files hold them: ``queries.sql`` for both databases and ``queries_postgres.sql`` for what must differ.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
_NAME = re.compile(r"^-- name: (\w+)\n((?:-- .*\n)+)", re.MULTILINE)
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_VALUES = re.compile(r"(.*?VALUES )(\([^()]*\))(.*)", re.DOTALL)
# The filters that ``{who}`` stands for, each making a query of its own: the planner sees only what it must.
_WHO = {
    "": "",
    "/customer": "AND customer_id = :customer_id",
    "/key": "AND key_id = :key_id",
    "/both": "AND key_id = :key_id AND customer_id = :customer_id",
}


@dataclass(frozen=True, slots=True)
class Query:
    """One statement. In ``text`` the parameters are named, or numbered in the order of ``parameters``."""

    name: str
    sentence: str
    text: str
    parameters: tuple[str, ...]
    # Whether one execution takes many rows: from VALUES (SQLite), or from arrays (Postgres).
    takes_rows: bool = False


@cache
def named() -> Mapping[str, Query]:
    """All statements that both databases share, or that SQLite has its own way."""
    return parse((HERE / "queries.sql").read_text())


@cache
def for_sqlite() -> Mapping[str, Query]:
    """All statements as SQLite takes them."""
    return {name: _numbered(query, "?") for name, query in named().items()}


@cache
def for_postgres() -> Mapping[str, Query]:
    """All statements as Postgres takes them."""
    ours = {**named(), **parse((HERE / "queries_postgres.sql").read_text())}
    return {name: _numbered(query, "$") for name, query in ours.items()}


@cache
def as_one(names: tuple[str, ...]) -> str:
    """Several statements of Postgres as one, whose parameters follow each other: they see the same rows, and none sees
    what another changes."""
    parts, count = [], 0
    for number, name in enumerate(names):
        query = for_postgres()[name]
        parts.append(f"part_{number} AS ({_shifted(query.text, count)})")
        count += len(query.parameters)
    return f"WITH {', '.join(parts)} SELECT 1"


def _shifted(text: str, by: int) -> str:
    return re.sub(r"\$(\d+)", lambda found: f"${int(found[1]) + by}", text)


@cache
def for_rows(query: Query, count: int) -> str:
    """The text of a statement with VALUES for so many rows at once, whose parameters follow each other."""
    head, values, tail = _VALUES.fullmatch(query.text).groups()  # type: ignore[union-attr]
    row = f"({', '.join('?' * len(query.parameters))})"
    assert values.count("?") == len(query.parameters), query.name
    return head + ", ".join([row] * count) + tail


def parse(source: str) -> dict[str, Query]:
    """The queries of one file. Raises ValueError for a name that stands twice."""
    found: dict[str, Query] = {}
    heads = list(_NAME.finditer(source))
    for index, head in enumerate(heads):
        end = heads[index + 1].start() if index + 1 < len(heads) else len(source)
        text = source[head.end() : end].strip().removesuffix(";")
        sentence = " ".join(line.removeprefix("-- ") for line in head[2].splitlines())
        for suffix, who in _WHO.items() if "{who}" in text else [("", "")]:
            name = head[1] + suffix
            if name in found:
                raise ValueError(f"the query {name!r} stands twice")
            filtered = text.replace("{who}", who)
            found[name] = Query(name, sentence, filtered, tuple(dict.fromkeys(_PARAMETER.findall(filtered))))
    return found


def _numbered(query: Query, sign: str) -> Query:
    numbers = {name: f"{sign}{index}" for index, name in enumerate(query.parameters, start=1)}
    return Query(
        query.name,
        query.sentence,
        _PARAMETER.sub(lambda found: numbers[found[1]], query.text),
        query.parameters,
        any(sign in query.text for sign in ("VALUES (", "unnest(", "ANY(CAST(")),
    )
