"""How hard the property tests look: ``GATEKEEPER_HYPOTHESIS=long`` multiplies their examples by 50.

The rule: no deadline (a busy machine is no defect), and one knob for all.
"""

import os

from hypothesis import HealthCheck, settings

LONG = os.environ.get("GATEKEEPER_HYPOTHESIS") == "long"
FACTOR = 50 if LONG else 1


def examples(count: int) -> settings:
    """The decorator of a property test that looks at so many examples in a usual run."""
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much] if LONG else []
    return settings(max_examples=count * FACTOR, deadline=None, suppress_health_check=quiet)
