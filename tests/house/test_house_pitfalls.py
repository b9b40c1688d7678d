"""The pitfalls of metered billing: each has at least one test that names it in its docstring, as "Pitfall 7"."""

import ast
import re

from house_files import complain, place, python_files, tree

# What goes wrong elsewhere, by number.
PITFALLS = {
    1: "a refused duplicate stalls the queue",
    2: "a crash after the biller has accepted",
    3: "a crash before it was asked",
    4: "a retry works its sum out anew",
    5: "a restart makes a new identifier",
    6: "a blind resend after a day",
    7: "usage older than 35 days",
    8: "an instant in the future",
    9: "no instant at all",
    10: "a batch on both sides of a period's end",
    11: "a 429 that nobody waits for",
    12: "an SDK that never tries again",
    13: "a 500 that is repeated under its key",
    14: "two calls at once for one customer and meter",
    15: "accepted, and found wrong later",
    16: "too many digits, or a fraction",
    17: "1E-7 on the wire",
    18: "cents taken for dollars",
    19: "money in floats",
    20: "rounded too early",
    21: "the edge of what is included",
    22: "many at once pass a cap",
    23: "settled several times",
    24: "a hold that nobody gives back",
    25: "settled after its hold was swept",
    26: "a client that leaves rides free",
    27: "a stream without usage is free in silence",
    28: "more used than was held",
    29: "each worker counts for itself",
    30: "two flushers",
    31: "a reset erases usage",
    32: "an invoice in mid-period resets",
    33: "one payment, two events",
    34: "one event, two URLs",
    35: "events out of order",
    36: "created, and not paid",
    37: "confirmed before it is kept",
    38: "JSON written anew before it is verified",
    39: "a signature from the future",
    40: "signed junk is a 500",
    41: "a secret that is rolled",
    42: "an empty secret",
    43: "old and new shapes",
    44: "an SDK object taken for a dict",
    45: "January 31, February 29",
    46: "the host's time zone",
    47: "usage lost when the plan changes",
    48: "ended before the last flush",
    49: "a test event on a live key",
    50: "switched off, and still talking",
    51: "a reader of SQLite that turns into a writer",
    52: "a model without a price",
    53: "cut off at the first failed payment",
    54: "telemetry",
}
_NAMED = re.compile(r"[Pp]itfalls? (\d+(?:(?:, | and |, and )\d+)*)")


def named() -> dict[int, list[str]]:
    """The tests that name each pitfall."""
    found: dict[int, list[str]] = {}
    for path in python_files("tests"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for match in _NAMED.finditer(ast.get_docstring(node) or ""):
                    for number in re.findall(r"\d+", match[1]):
                        found.setdefault(int(number), []).append(f"{place(path, node)} {node.name}")
    return found


def test_every_pitfall_has_a_test_that_names_it_and_no_test_names_another():
    found = named()
    assert sorted(PITFALLS) == list(range(1, 55))
    missing = [f"{number}: {what}" for number, what in PITFALLS.items() if number not in found]
    assert not missing, complain(missing, "No test names these pitfalls:")
    unknown = [each for number in set(found) - set(PITFALLS) for each in found[number]]
    assert not unknown, complain(unknown, "These tests name a pitfall that there is not:")
