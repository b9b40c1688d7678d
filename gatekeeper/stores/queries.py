"""The statements of the store, read from .sql files: a name, a sentence, the text. The rule: no SQL in Python code.

``queries.sql`` and ``reports.sql`` hold them for both databases, ``queries_postgres.sql`` and ``reports_postgres.sql``
what must differ.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

HERE = Path(__file__).parent
_NAME = re.compile(r"^-- name: (\w+)\n((?:-- .*\n)+)", re.MULTILINE)
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_VALUES = re.compile(r"(.*?VALUES )(\([^()]*\))(.*)", re.DOTALL)
_PLACE = re.compile(r"\{(\w+)\}")
# What the places stand for, each making a query of its own: the planner sees only what it must. WHO and OF are filters
# (by customer and key; by the subject of a scope, whose customer is named where it lives under one), BY is what sums
# are told apart by, WHAT the amounts that a pace is of, ORDER which rows are kept.
_PLACES: Mapping[str, Mapping[str, str]] = {
    "named": {"": "", "/named": "AND call_id IN (:call_id, :correction)"},
    "who": {
        "": "",
        "/customer": "AND customer_id = :customer_id",
        "/key": "AND key_id = :key_id",
        "/both": "AND key_id = :key_id AND customer_id = :customer_id",
    },
    "only": {"": "", "/odd": "AND (outcome <> 'complete' OR status >= 400)"},
    "by": {
        "/all": "CAST(NULL AS TEXT)",
        "/time": "(at_ms - :start_ms) / :step_ms",
        "/global": "CAST('*' AS TEXT)",
        "/customer": "customer_id",
        "/user": "customer_id || '/' || user_id",
        "/agent": "customer_id || '/' || agent_id",
        "/key": "key_id",
        "/plan": "plan_id",
        "/route": "route",
        "/upstream": "upstream",
        "/model": "model",
    },
    "what": {"/cost": "cost_nano", "/charge": "charge_nano", "/units": "units_micro"},
    "of": {
        "": "",
        "/of_customer": "AND customer_id = :subject",
        "/of_user": "AND customer_id = :customer_id AND user_id = :subject",
        "/of_agent": "AND customer_id = :customer_id AND agent_id = :subject",
        "/of_key": "AND key_id = :subject",
        "/of_plan": "AND plan_id = :subject",
        "/of_route": "AND route = :subject",
        "/of_model": "AND model = :subject",
        "/of_both": "AND customer_id = :customer_id AND key_id = :subject",
    },
    "order": {"/dearest": "ORDER BY 5 DESC, 4 DESC, 3 DESC, 1", "/latest": "ORDER BY 1 DESC"},
}
# By which index SQLite finds the sums of one subject; follows from `of`.
_VIA: Mapping[str, str] = {
    "/of_customer": " INDEXED BY usage_sum_of_customer",
    "/of_user": " INDEXED BY usage_sum_of_customer",
    "/of_agent": " INDEXED BY usage_sum_of_customer",
    "/of_key": " INDEXED BY usage_sum_of_key",
    "/of_both": " INDEXED BY usage_sum_of_key",
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
    return {**parse((HERE / "queries.sql").read_text()), **parse((HERE / "reports.sql").read_text())}


@cache
def for_sqlite() -> Mapping[str, Query]:
    """All statements as SQLite takes them."""
    return {name: _numbered(query, "?") for name, query in named().items()}


@cache
def for_postgres() -> Mapping[str, Query]:
    """All statements as Postgres takes them."""
    files = ("queries_postgres.sql", "reports_postgres.sql")
    ours = {**named(), **{name: query for file in files for name, query in parse((HERE / file).read_text()).items()}}
    return {name: _numbered(query, "$") for name, query in ours.items()}


@cache
def as_one(names: tuple[str, ...]) -> str:
    """Several statements of Postgres as one, whose parameters follow each other: they see the same rows, and none sees
    what another changes."""
    return f"WITH {_parts(names)} SELECT 1"


@cache
def as_each(names: tuple[str, ...]) -> str:
    """Several statements of Postgres that find rows (and lock them) as one, carried out in this order. Each row comes
    as the number of its statement and a tuple."""
    found = " UNION ALL ".join(f"SELECT {number}, part_{number} FROM part_{number}" for number in range(len(names)))
    return f"WITH {_parts(names)} {found}"


def _parts(names: tuple[str, ...]) -> str:
    parts, count = [], 0
    for number, name in enumerate(names):
        query = for_postgres()[name]
        parts.append(f"part_{number} AS ({_shifted(query.text, count)})")
        count += len(query.parameters)
    return ", ".join(parts)


def _shifted(text: str, by: int) -> str:
    return re.sub(r"\$(\d+)", lambda found: f"${int(found[1]) + by}", text)


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
        for name, filled in _filled(head[1], text):
            if name in found:
                raise ValueError(f"the query {name!r} stands twice")
            found[name] = Query(name, sentence, filled, tuple(dict.fromkeys(_PARAMETER.findall(filled))))
    return found


def _filled(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Every way to fill the places of a text, with the name that it makes: the places in the order of ``_PLACES``."""
    places = [place for place in _PLACES if place in _PLACE.findall(text)]
    for ways in product(*(_PLACES[place].items() for place in places)):
        filled = text.replace("{via}", next((_VIA[suffix] for suffix, _ in ways if suffix in _VIA), ""))
        for place, (_, written) in zip(places, ways, strict=True):
            filled = filled.replace(f"{{{place}}}", written)
        yield name + "".join(suffix for suffix, _ in ways), filled


def _numbered(query: Query, sign: str) -> Query:
    numbers = {name: f"{sign}{index}" for index, name in enumerate(query.parameters, start=1)}
    return Query(
        query.name,
        query.sentence,
        _PARAMETER.sub(lambda found: numbers[found[1]], query.text),
        query.parameters,
        any(sign in query.text for sign in ("VALUES (", "unnest(", "ANY(CAST(")),
    )
