"""Header names and values as an author writes them: what may be set, removed, and which variables there are.

The rule: ``"{userID}"`` alone is a variable of the call (``${NAME}`` is one of the environment); any other text is
sent as it is written. What HTTP needs to frame a message cannot be set here.
"""

import re
from collections.abc import Iterable
from functools import partial

from gatekeeper.config.gateway import SetHeader, Variable
from gatekeeper.config.kinds import text
from gatekeeper.config.reading import Cell, Table, Wrong, read_cell
from gatekeeper.config.variables import Variables
from gatekeeper.diagnostics import suggest

# On by default, so that an upstream of one's own knows who calls; `X-User-ID = false` turns one off.
ALWAYS_SET = (SetHeader("X-User-ID", Variable.USER_ID), SetHeader("X-Plan-ID", Variable.PLAN_ID))

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")
_VARIABLE = re.compile(r"\{([A-Za-z_]+)\}")
_FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def check_name(name: str) -> None:
    """Raises Wrong for a name that is no header, or one of those that frame the message."""
    if not _TOKEN.fullmatch(name):
        raise Wrong(f"{name!r} is no name of a header", "letters, digits and '-', as in X-Team", at_key=True)
    if name.lower() in _FRAMING:
        raise Wrong(f"{name} is set by the gateway itself", "take it away: it frames the message", at_key=True)


def header_name(cell: Cell) -> str:
    """A kind: the name of a header."""
    name = text(cell)
    check_name(name)
    return name


def fixed_headers(table: Table, variables: Variables) -> tuple[tuple[str, str], ...]:
    """The headers of an upstream: text only, with environment variables put in. An empty value is left out."""
    found: list[tuple[str, str]] = []
    for name, cell in table.named():
        value = read_cell(cell, partial(_fixed_header, name, variables), "")
        if value:
            found.append((name, value))
    return tuple(found)


def set_headers(table: Table, variables: Variables) -> tuple[SetHeader, ...]:
    """``set_headers`` of a route over those of its fallback over ``ALWAYS_SET``; ``false`` takes one away."""
    merged: dict[str, SetHeader | None] = {header.name.lower(): header for header in ALWAYS_SET}
    for level in (table.fallback, table):
        if level is None or not level.has("set_headers"):
            continue
        for name, cell in level.table("set_headers").named():
            merged[name.lower()] = read_cell(cell, partial(_set_header, name, variables), None)
    return tuple(header for header in merged.values() if header is not None)


def removed(names: Iterable[str], kept: Iterable[SetHeader], table: Table) -> frozenset[str]:
    """Names to remove, in lower case; one that is also set is a mistake."""
    lower = {name.lower() for name in names}
    for header in kept:
        if header.name.lower() in lower:
            hint = "the client's own is always removed where one is set; take it out of one of the two"
            table.file.complain((*table.path, "remove_headers"), f"{header.name} is both set and removed", hint)
    return frozenset(lower)


def _fixed_header(name: str, variables: Variables, cell: Cell) -> str:
    check_name(name)
    return _literal(variables.maybe(cell))


def _set_header(name: str, variables: Variables, cell: Cell) -> SetHeader | None:
    check_name(name)
    if cell.value is False:
        return None
    written = variables.text(cell)
    found = _VARIABLE.fullmatch(written)
    known = [variable.value for variable in Variable]
    listed = ", ".join(f"{{{variable}}}" for variable in known)
    if found is not None:
        if found[1] not in known:
            raise Wrong(f"there is no variable {written}", suggest(found[1], known) or f"known: {listed}")
        return SetHeader(name, Variable(found[1]))
    for part in _VARIABLE.finditer(written):
        if part[1] in known:
            raise Wrong("a variable stands alone in a header's value", f'write {name} = "{part[0]}"')
    return SetHeader(name, _literal(written))


def _literal(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise Wrong("a header's value is one line of printable latin-1 text")
    return value.strip(" ")
