"""Limits that stay closed until the billing period turns once what was used has reached their cap.

The rule: such a limit has a second row, its latch, which counts over the customer's billing period how high a cap was
reached. It is locked, decided and written with the first, so the row decides and no process remembers anything: the
limit is closed while that figure is not below its cap. A larger cap or a reset opens it again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gatekeeper.rules.limits import CounterKey, CounterRow, Mode, Release, StockLimit, StockLine, Window, is_owned

# How the dimension of a latch begins; four letters, as those compare it who are in a hurry.
LATCH = "hit:"
_SHORT = (Window.HOUR, Window.DAY)


def latch_dimension(window: str, dimension: str) -> str:
    """What a latch counts: no dimension of any call, so it is in no sum of one."""
    return f"{LATCH}{window}:{dimension}"


def is_latch(key: CounterKey) -> bool:
    """Whether the row is a latch."""
    return key[2][:4] == LATCH


def shown(key: CounterKey) -> tuple[str, str]:
    """(dimension, window) of the limit whose latch this is, as people know it."""
    _, window, dimension = key.dimension.split(":", 2)
    return dimension, window


def known_as(key: CounterKey) -> tuple[str, str]:
    """The same of any row."""
    return shown(key) if is_latch(key) else (key.dimension, key.window)


def reached(key: CounterKey, rows: Mapping[CounterKey, CounterRow]) -> int:
    """How much is used on the row that this latch belongs to; there is one in ``rows`` of each hold."""
    dimension, window = shown(key)
    found = (row.used for other, row in rows.items() if other[:4] == (key.scope, key.subject, dimension, window))
    return max(found, default=0)


def closing(latch: CounterKey, cap: int | None, others: int, rows: Mapping[CounterKey, CounterRow]) -> int:
    """What the end of a call adds to a latch at ``others``: as much as is missing to the cap, where that is reached."""
    return max(0, cap - others) if cap is not None and reached(latch, rows) >= cap else 0


def seen(lines: Iterable[StockLine], rows: Iterable[CounterRow]) -> list[tuple[StockLine, CounterRow]]:
    """Each limit once, as people look at it: one that is closed as used up until the billing period turns. ``rows`` are
    the rows of the lines, which stand in the order of ``lines.stock_lines``."""
    found: list[tuple[StockLine, CounterRow]] = []
    for line, row in zip(lines, rows, strict=True):
        if not is_latch(line.key):
            found.append((line, row))
        elif line.cap is not None and row.used >= line.cap:
            found[-1] = replace(line, key=found[-1][0].key), row
    return found


def mistake(limit: StockLimit) -> tuple[str, str, str] | None:
    """(key, what is wrong, hint) of a limit whose windows nobody has; None where all is well."""
    if limit.window is Window.BILLING_PERIOD and not is_owned(limit.scope):
        message = f"a billing period is a customer's, and the scope {limit.scope} has no customer"
        return "window", message, 'window = "month", or a scope of customer, user, agent or key'
    if limit.release is Release.WINDOW:
        return None
    if limit.window not in _SHORT:
        return (
            "release",
            f"only a limit per hour or day waits for the billing period, not one per {limit.window}",
            ('take release away, or window = "day"'),
        )
    if not is_owned(limit.scope):
        message = f"a billing period is a customer's, and the scope {limit.scope} has no customer"
        return "release", message, "a scope of customer, user, agent or key"
    if limit.mode not in (Mode.BLOCK, Mode.SOFT):
        return "release", f"a limit in mode {limit.mode} never closes", 'mode = "block", or take release away'
    return None
