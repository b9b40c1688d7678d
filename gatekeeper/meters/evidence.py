"""What a meter saw, as JSON: written down while it reads, read back when a stored reading is evaluated again.

The rule: a round trip gives the same values to the digit, and what was read is small.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gatekeeper.meters.folds import Marked
from gatekeeper.meters.run import Code, Run
from gatekeeper.meters.values import Unmeasurable, decimal_text, too_large

_WHOLE = re.compile(r"-?[0-9]{1,60}\Z")
# What a slot holds is never deeper than 256; every level takes two calls of the thousand that Python allows.
_DEPTH_MAX = 256
_SPECIAL = ("$decimal", "$map", "$marked", "$error", "$omitted")


def _digits(value: Decimal) -> str:
    """Plain digits; a number out of all bounds in its short form, never with a million zeros."""
    return decimal_text(value) if value and abs(value.adjusted()) <= 50 else str(value) if value else "0"


def packed(value: Any) -> Any:
    """JSON-ready, without loss: a fraction stands as ``{"$decimal": "0.1"}``."""
    if value is None or type(value) is int:
        return value
    if isinstance(value, Decimal):
        text = _digits(value)
        return int(text) if _WHOLE.match(text) else {"$decimal": text}
    if isinstance(value, dict):
        made = {key: packed(part) for key, part in value.items()}
        return {"$map": made} if len(made) == 1 and next(iter(made)) in _SPECIAL else made
    if isinstance(value, list):
        return [packed(part) for part in value]
    if isinstance(value, str):
        # JSON columns refuse lone surrogates and NUL; such a text is not evidence but noise.
        return value.encode("utf-8", "replace").decode().replace("\x00", "�")
    return value


def plain_json(value: Any, depth: int = 0) -> Any:
    """For people and records: whole numbers as integers, fractions as strings of their digits. Raises Unmeasurable for
    what is nested too deep to be shown."""
    if depth > _DEPTH_MAX:
        raise Unmeasurable("the result is nested too deep")
    if value is None or type(value) is int:
        return value
    if isinstance(value, Decimal):
        text = _digits(value)
        return int(text) if _WHOLE.match(text) else text
    if isinstance(value, dict):
        return {key: plain_json(part, depth + 1) for key, part in value.items()}
    return [plain_json(part, depth + 1) for part in value] if isinstance(value, list) else packed(value)


def unpacked(value: Any) -> Any:
    """The reverse of ``packed``."""
    if isinstance(value, dict):
        if len(value) == 1:
            key, part = next(iter(value.items()))
            if key == "$decimal":
                return Decimal(part)
            if key == "$map":
                return {name: unpacked(each) for name, each in part.items()}
        return {name: unpacked(part) for name, part in value.items()}
    if isinstance(value, list):
        return [unpacked(part) for part in value]
    return value


def recorded(key: str, code: Code, usual: int, *, small: bool = False) -> Code:
    """Writes down what ``code`` gives under ``key``, or reads it back. ``usual``: the marks that go without saying;
    ``small``: it need not be measured."""

    def recording(run: Run) -> Marked:
        if run.recorded is not None:
            return _recalled(run.recorded, key, usual)
        try:
            value, marks = code(run)
        except Unmeasurable as problem:
            run.evidence[key] = {"$error": str(problem)}
            raise
        if not small and too_large(value):
            run.evidence[key] = {"$omitted": "larger than 16 KiB or 256 keys"}
        elif marks == usual or value is None:
            run.evidence[key] = packed(value)
        else:
            run.evidence[key] = {"$marked": [marks, packed(value)]}
        return value, marks

    return recording


def _recalled(evidence: Mapping[str, Any], key: str, usual: int) -> Marked:
    if key not in evidence:
        raise Unmeasurable(f"the evidence does not hold {key}")
    held = evidence[key]
    if isinstance(held, dict) and len(held) == 1:
        kind, part = next(iter(held.items()))
        if kind == "$error":
            raise Unmeasurable(part)
        if kind == "$omitted":
            raise Unmeasurable(f"the evidence does not hold {key}: it was {part}")
        if kind == "$marked":
            return unpacked(part[1]), part[0]
    return unpacked(held), usual
