"""The promises of a plan, executed: so many units in one period are charged exactly so, or are refused.

The rule: an example is compared to the nano-dollar with the same code that charges a customer.
"""

from decimal import Decimal

from gatekeeper.config.reading import TomlFile
from gatekeeper.money import EXACT, NANO_PER_DOLLAR, dollars_text, units_text
from gatekeeper.rules.plans import Example, Plan


def fail_examples(plan: Plan, file: TomlFile) -> None:
    """Complain in ``file`` about each ``[[example]]`` that the plan does not keep."""
    for number, example in enumerate(plan.examples):
        broken = broken_promise(plan, example)
        if broken is not None:
            key = "refused" if example.charge is None else "charge"
            title = f"example {example.name!r}" if example.name else "this example"
            file.complain(("example", number, key), f"{title} does not hold: {broken}", "mend the plan or the example")


def broken_promise(plan: Plan, example: Example) -> str | None:
    """How the plan breaks this example, in words; None where it holds."""
    units = units_text(example.units_micro)
    if not plan.admits(example.units_micro):
        return None if example.charge is None else f"the plan refuses {units} units"
    charged = plan.period_charge_nano(example.units_micro)
    if example.charge is None:
        return f"the plan admits {units} units and charges ${dollars_text(charged)}"
    # Not rounded: an example that names a part of a nano-dollar promises what cannot be charged.
    if EXACT.multiply(example.charge, Decimal(NANO_PER_DOLLAR)) == charged:
        return None
    return f"{units} units are charged ${dollars_text(charged)}"
