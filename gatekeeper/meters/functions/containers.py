"""Functions over maps and lists that look at one value."""

from typing import Any

from gatekeeper.meters.functions.spec import Function, Style, ex
from gatekeeper.meters.kinds import BOOL, LIST, TEXT, Kind, Type
from gatekeeper.meters.paths import parsed_path, stepped
from gatekeeper.meters.values import Unmeasurable, kind

A = Kind.ANY


def get(holder: Any, path: str) -> Any:
    """``get(x, "a.b[0].c")``; null for a path that cannot be read."""
    steps = parsed_path(path)
    return None if steps is None else stepped(holder, steps)


def _keys(holder: Any) -> list[str]:
    if isinstance(holder, dict):
        return list(holder)
    raise Unmeasurable(f"keys wants a map, found {kind(holder)}")


def _values(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return list(holder.values())
    raise Unmeasurable(f"values wants a map, found {kind(holder)}")


def _has(holder: Any, key: Any) -> bool:
    return isinstance(holder, dict) and isinstance(key, str) and holder.get(key) is not None


_FALLBACK = (ex("coalesce(null, '', 'a')", '"a"'), ex("coalesce(null, 2)", "2"))

FUNCTIONS = (
    Function(
        "get",
        'get(x, "a.b[0].c")',
        "What stands at a path; null if any step is missing.",
        (ex("get({a: {b: [1, {c: 5}]}}, 'a.b[1].c')", "5"), ex("get({a: 1}, 'b.c')", "null")),
        (A, Kind.TEXT),
        run=get,
    ),
    Function(
        "keys",
        "keys(map)",
        "The keys, in their order.",
        (ex("keys({b: 1, a: 2})", '["b","a"]'),),
        (Kind.MAP,),
        gives=Type(Kind.LIST, TEXT),
        run=_keys,
    ),
    Function(
        "values",
        "values(map)",
        "The values, in their order.",
        (ex("values({b: 1, a: 2})", "[1,2]"),),
        (Kind.MAP,),
        gives=LIST,
        run=_values,
    ),
    Function(
        "has",
        "has(map, key)",
        "Whether the key is there and not null.",
        (ex("has({a: 1}, 'a')", "true"), ex("has({a: null}, 'a')", "false")),
        (A, Kind.TEXT),
        gives=BOOL,
        run=_has,
        sees_null=True,
    ),
    Function(
        "coalesce",
        "coalesce(a, b, ...)",
        "The first argument that is neither null nor ''.",
        _FALLBACK,
        (A, A),
        rest=A,
        style=Style.FALLBACK,
    ),
    Function(
        "default",
        "default(x, otherwise)",
        "x, or the other where x is null or ''.",
        (ex("default('', 3)", "3"), ex("default(0, 3)", "0")),
        (A, A),
        style=Style.FALLBACK,
    ),
)
