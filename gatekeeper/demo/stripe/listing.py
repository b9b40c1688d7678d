"""Lists and expansion. The rule: newest first, as https://docs.stripe.com/api/pagination says; ``expand`` replaces an
id by its object, or adds what is only there when asked for (https://docs.stripe.com/api/expanding_objects)."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from gatekeeper.demo.stripe.account import Account, Stored
from gatekeeper.demo.stripe.refusing import invalid, missing

LIMIT_DEFAULT = 10
LIMIT_MAX = 100
# Fields that a reader gets only by asking (https://docs.stripe.com/api/prices/object#price_object-tiers).
_ONLY_EXPANDED = {"price": ("tiers", "currency_options"), "checkout.session": ("line_items",)}


def page(url: str, found: Iterable[Stored], params: Mapping[str, Any]) -> Stored:
    """One page of ``found`` (oldest first) by limit, starting_after and ending_before. Raises Refused."""
    limit = params.get("limit", LIMIT_DEFAULT)
    if not 1 <= limit <= LIMIT_MAX:
        raise invalid("This value must be between 1 and 100 (inclusive).", "limit", "parameter_invalid_integer")
    rows = [row for row in reversed(list(found)) if created_matches(row, params.get("created"))]
    ids = [row["id"] for row in rows]
    for name in ("starting_after", "ending_before"):
        if name in params and params[name] not in ids:
            raise missing("object", params[name], name)
    if "ending_before" in params:
        before = rows[: ids.index(params["ending_before"])]
        return _list(url, before[-limit:], len(before) > limit)
    after = rows[ids.index(params["starting_after"]) + 1 :] if "starting_after" in params else rows
    return _list(url, after[:limit], len(after) > limit)


def whole(url: str, rows: list[Stored]) -> Stored:
    """A list inside an object (items, lines)."""
    return _list(url, rows, has_more=False)


def matching(found: Iterable[Stored], params: Mapping[str, Any], names: Iterable[str]) -> Iterable[Stored]:
    """Those whose fields equal the given filters."""
    wanted = {name: params[name] for name in names if name in params}
    return (row for row in found if all(row.get(name) == value for name, value in wanted.items()))


def created_matches(row: Stored, wanted: Any) -> bool:
    """The ``created`` filter: a time or gt, gte, lt, lte."""
    if wanted is None:
        return True
    at = row["created"]
    if isinstance(wanted, int):
        return bool(at == wanted)
    return all(
        (at > bound, at >= bound, at < bound, at <= bound)[("gt", "gte", "lt", "lte").index(name)]
        for name, bound in wanted.items()
    )


def rendered(account: Account, found: Stored, expand: Iterable[str] = ()) -> Stored:
    """A copy for the outside: our own keys dropped, the asked fields expanded. Raises Refused (400)."""
    outside: Stored = _public(found)
    for path in expand:
        _expand(account, outside, path.split("."), path)
    _hide(outside, [path.split(".") for path in expand])
    return outside


def _list(url: str, rows: list[Stored], has_more: bool) -> Stored:
    return {"object": "list", "url": url, "has_more": has_more, "data": rows}


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(below) for key, below in value.items() if not key.startswith("_")}
    if isinstance(value, list):
        return [_public(below) for below in value]
    return copy.copy(value)


def _expand(account: Account, value: Any, path: list[str], whole_path: str) -> None:
    if isinstance(value, list):
        for below in value:
            _expand(account, below, path, whole_path)
        return
    if not isinstance(value, dict):
        return
    name, rest = path[0], path[1:]
    if name not in value:
        raise invalid(f"This property cannot be expanded ({whole_path}).", "expand", "property_cannot_be_expanded")
    if isinstance(value[name], str):
        found = account.find(value[name])
        if found is None:
            raise invalid(f"This property cannot be expanded ({whole_path}).", "expand", "property_cannot_be_expanded")
        value[name] = _public(found)
    if rest:
        _expand(account, value[name], rest, whole_path)


def _hide(value: Any, wanted: list[list[str]]) -> None:
    """Drop what is only there when asked for."""
    if isinstance(value, list):
        for below in value:
            _hide(below, wanted)
    if not isinstance(value, dict):
        return
    asked = {path[0] for path in wanted if len(path) == 1}
    kind = value.get("object")
    for name in _ONLY_EXPANDED.get(kind, ()) if isinstance(kind, str) else ():
        if name not in asked:
            value.pop(name, None)
    for name, below in value.items():
        _hide(below, [path[1:] for path in wanted if path[0] == name and len(path) > 1])
