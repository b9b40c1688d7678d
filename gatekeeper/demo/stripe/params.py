"""Parameters checked and typed against the SDK's own TypedDicts.

The rule: what the SDK's types do not name is refused as Stripe refuses it (``parameter_unknown``), what they require
must be there (``parameter_missing``), and a value that is not of its type is a 400. An enum that the SDK leaves open
for later versions (``Literal[...] | str``) is closed here: a misspelled word must fail a test.
https://docs.stripe.com/error-codes#parameter-unknown, #parameter-missing, #parameter-invalid-integer.
"""

import functools
import re
import types
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin

from typing_extensions import get_type_hints, is_typeddict

from gatekeeper.demo.stripe.refusing import Refused, invalid_params

# Stripe's wire takes a plain decimal; Python writes small ones as 1E-7, which it does not.
_PLAIN_DECIMAL = re.compile(r"-?\d+(\.\d{1,12})?")
_WHOLE = re.compile(r"-?\d+")
_WORDS = {"true": True, "false": False}


class _Mismatch(Exception):
    def __init__(self, param: str, message: str, code: str) -> None:
        super().__init__(message)
        self.param = param
        self.code = code

    def refused(self) -> Refused:
        return invalid_params(str(self), self.param, self.code)


def typed(given: Mapping[str, Any], shape: type) -> dict[str, Any]:
    """The parameters with their leaves typed (int, bool, Decimal, text). Raises Refused (400, not saved)."""
    try:
        return _record(given, shape, "")
    except _Mismatch as mismatch:
        raise mismatch.refused() from mismatch


@functools.cache
def _hints(shape: type) -> Mapping[str, Any]:
    """Types by name, without the options that never reach the wire (API key, retries, ...)."""
    # Imported late: the demo's provider runs without the SDK.
    from stripe._request_options import RequestOptions
    from stripe._stripe_context import StripeContext

    hints = get_type_hints(shape, localns={"StripeContext": StripeContext, "Mapping": Mapping}, include_extras=True)
    return {name: hint for name, hint in hints.items() if name not in RequestOptions.__annotations__}


def _record(given: Any, shape: type, path: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise _Mismatch(path, f"Invalid object: {path} must be a hash", "parameter_invalid_object")
    hints = _hints(shape)
    for name in given:
        if name not in hints:
            unknown = _within(path, name)
            raise _Mismatch(unknown, f"Received unknown parameter: {unknown}", "parameter_unknown")
    for name in shape.__required_keys__:  # type: ignore[attr-defined]
        if name in hints and name not in given:
            lacking = _within(path, name)
            raise _Mismatch(lacking, f"Missing required param: {lacking}.", "parameter_missing")
    return {name: _value(value, hints[name], _within(path, name)) for name, value in given.items()}


def _value(given: Any, hint: Any, path: str) -> Any:
    origin = get_origin(hint)
    if origin in (NotRequired, Required):
        return _value(given, get_args(hint)[0], path)
    if origin in (Union, types.UnionType):
        if given is None and type(None) in get_args(hint):
            return None
        return _one_of(given, _closed(get_args(hint)), path)
    if origin is Literal:
        meant = _WORDS.get(given, given) if isinstance(given, str) else given
        for word in (given, meant):
            if word in get_args(hint):
                return word
        raise _Mismatch(path, f"Invalid {path}: must be one of {', '.join(map(str, get_args(hint)))}", "invalid_enum")
    if origin is list:
        if not isinstance(given, list):
            raise _Mismatch(path, f"Invalid array: {path}", "parameter_invalid_array")
        return [_value(one, get_args(hint)[0], f"{path}[{index}]") for index, one in enumerate(given)]
    if origin is dict:
        if not isinstance(given, Mapping):
            raise _Mismatch(path, f"Invalid hash: {path}", "parameter_invalid_object")
        return {key: _value(value, get_args(hint)[1], f"{path}[{key}]") for key, value in given.items()}
    if is_typeddict(hint):
        return _record(given, hint, path)
    return _leaf(given, hint, path)


def _closed(branches: tuple[Any, ...]) -> list[Any]:
    """The branches of a union without the text that leaves an enum open."""
    enums = any(get_origin(branch) is Literal and get_args(branch) != ("",) for branch in branches)
    return [branch for branch in branches if not (branch is str and enums) and branch is not type(None)]


def _one_of(given: Any, branches: list[Any], path: str) -> Any:
    mismatch: _Mismatch | None = None
    for branch in branches:
        try:
            return _value(given, branch, path)
        except _Mismatch as wrong:
            # The deepest complaint is the one about what the caller meant.
            if mismatch is None or len(wrong.param) > len(mismatch.param):
                mismatch = wrong
    assert mismatch is not None, branches
    raise mismatch


def _leaf(given: Any, hint: Any, path: str) -> Any:
    if hint is str and isinstance(given, str):
        return given
    if hint is bool and (isinstance(given, bool) or given in ("true", "false")):
        return given in (True, "true")
    if hint is int and not isinstance(given, bool):
        if isinstance(given, int):
            return given
        if isinstance(given, str) and _WHOLE.fullmatch(given):
            return int(given)
        raise _Mismatch(path, f"Invalid integer: {given}", "parameter_invalid_integer")
    if hint is Decimal and isinstance(given, str) and _PLAIN_DECIMAL.fullmatch(given):
        return Decimal(given)
    if hint is float and isinstance(given, str) and _PLAIN_DECIMAL.fullmatch(given):
        return Decimal(given)
    if hint is Any or hint is object:
        return given
    name = getattr(hint, "__name__", str(hint)).lower()
    raise _Mismatch(path, f"Invalid {name}: {given}", f"parameter_invalid_{name}")


def _within(path: str, name: str) -> str:
    return f"{path}[{name}]" if path else name
