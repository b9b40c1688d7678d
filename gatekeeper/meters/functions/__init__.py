"""The registry of functions: one record each. The rule: checker, completion and docs read only this."""

from gatekeeper.meters.functions import containers, folds, numbers, texts
from gatekeeper.meters.functions.spec import Example, Function, Style

FUNCTIONS: tuple[Function, ...] = tuple(
    sorted(
        (*texts.FUNCTIONS, *numbers.FUNCTIONS, *containers.FUNCTIONS, *folds.FUNCTIONS), key=lambda entry: entry.name
    )
)
BY_NAME: dict[str, Function] = {function.name: function for function in FUNCTIONS}

__all__ = ["BY_NAME", "FUNCTIONS", "Example", "Function", "Style"]
