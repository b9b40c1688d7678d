"""How hard the property tests look: ``GATEKEEPER_HYPOTHESIS=long`` multiplies their examples by 50, a number by itself.

The rule: no deadline (a busy machine is no defect), and one knob for all.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_WANTED = os.environ.get("GATEKEEPER_HYPOTHESIS", "")
FACTOR = 50 if _WANTED == "long" else int(_WANTED or 1)
LONG = FACTOR > 1
# Marks a sampled test that is no property test of hypothesis's own.
unhurried = pytest.mark.timeout(0) if LONG else lambda test: test


def examples(count: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorator of a property test that looks at so many examples in a usual run. A long run has no time limit."""
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much] if LONG else []
    how = settings(max_examples=count * FACTOR, deadline=None, suppress_health_check=quiet)
    return lambda test: unhurried(how(test))
