"""Form-encoded parameters with brackets, to nested values and back to nothing else.

The rule: the inverse of the SDK's ``stripe._encode._api_encode`` (``a[b][0]=c``), which is what Stripe reads:
https://docs.stripe.com/api (form-encoded request bodies). All leaves stay texts; ``params`` gives them their types.
"""

import re
from typing import Any
from urllib.parse import parse_qsl

_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
# More fields than any request of ours has; a larger body is a mistake of the caller.
FIELDS_MAX = 2_000


class BadForm(ValueError):
    """The body is no form; the text says why."""


def parse_form(text: str) -> dict[str, Any]:
    """Nested dicts, lists (numbered or empty brackets) and texts. Raises BadForm."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=FIELDS_MAX)
    except ValueError as wrong:
        raise BadForm(f"Invalid form: {wrong}") from wrong
    nested: dict[str, Any] = {}
    for key, value in pairs:
        found = _KEY.fullmatch(key)
        if found is None:
            raise BadForm(f"Invalid parameter name: {key}")
        _put(nested, [found[1], *re.findall(r"\[([^\[\]]*)\]", found[2])], value)
    return {key: _lists(value) for key, value in nested.items()}


def _put(into: dict[str, Any], path: list[str], value: str) -> None:
    for step in path[:-1]:
        below = into.setdefault(step, {})
        if not isinstance(below, dict):
            raise BadForm(f"Parameter {path[0]} is both a value and a hash")
        into = below
    last = path[-1] or str(len(into))
    into[last] = value


def _lists(value: Any) -> Any:
    """A hash whose keys are all numbers is a list (the SDK always numbers its lists)."""
    if not isinstance(value, dict):
        return value
    if value and all(key.isdecimal() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(below) for key, below in value.items()}
