"""The metering language: an expression reads a number, or a usage record, out of a response while it streams past.

Everything that others need is here; the stages are files: parse, check, lower, run.
"""

from gatekeeper.meters.functions import FUNCTIONS, Example, Function
from gatekeeper.meters.meter import Meter, check_expression, compile_meter
from gatekeeper.meters.metering import Metering
from gatekeeper.meters.names import CONTEXTS, NAMES, Context
from gatekeeper.meters.reading import Mark, Outcome, Reading
from gatekeeper.meters.run import Prices, RequestView, Tokenizer

__all__ = [
    "CONTEXTS",
    "FUNCTIONS",
    "NAMES",
    "Context",
    "Example",
    "Function",
    "Mark",
    "Meter",
    "Metering",
    "Outcome",
    "Prices",
    "Reading",
    "RequestView",
    "Tokenizer",
    "check_expression",
    "compile_meter",
]
