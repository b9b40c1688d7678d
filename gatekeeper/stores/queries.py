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
# The filters that ``{who}`` stands for, each making a query of its own: the planner sees only what it must.
_WHO = {
    "": "",
    "/customer": "AND customer_id = :customer_id",
    "/key": "AND key_id = :key_id",
    "/both": "AND key_id = :key_id AND customer_id = :customer_id",
}


@dataclass(frozen=True, slots=True)
class Query:
    """One statement. In ``text`` the parameters are named (SQLite) or numbered as in ``parameters`` (Postgres)."""

    name: str
    sentence: str
    text: str
    parameters: tuple[str, ...]


@cache
def for_sqlite() -> Mapping[str, Query]:
    """All statements as SQLite takes them."""
    return parse((HERE / "queries.sql").read_text())


@cache
def for_postgres() -> Mapping[str, Query]:
    """All statements as Postgres takes them."""
    named = {**for_sqlite(), **parse((HERE / "queries_postgres.sql").read_text())}
    return {name: _numbered(query) for name, query in named.items()}


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


def _numbered(query: Query) -> Query:
    numbers = {name: f"${index}" for index, name in enumerate(query.parameters, start=1)}
    return Query(
        query.name,
        query.sentence,
        _PARAMETER.sub(lambda found: numbers[found[1]], query.text),
        query.parameters,
    )
