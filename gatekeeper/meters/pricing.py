"""``tokens(text)`` and ``cost(model, usage)``: what is asked of the outside, through the Protocols in ``run``."""

from gatekeeper.meters.folds import GUESSED, NOTHING, Marked
from gatekeeper.meters.run import Code, Run
from gatekeeper.meters.values import Unmeasurable, bounded, kind

# Without a tokenizer: English has about 4 bytes a token, code and other scripts fewer. Marked as estimated anyway.
BYTES_PER_TOKEN = 3


def tokens_code(text: Code) -> Code:
    """The estimate is marked, so that it never passes for a measurement."""

    def code(run: Run) -> Marked:
        given, marks = text(run)
        if given is None:
            return NOTHING
        if not isinstance(given, str):
            raise Unmeasurable(f"tokens wants a string, found {kind(given)}")
        if run.tokenizer is not None:
            return run.tokenizer.count(given, run.view.model), marks | GUESSED
        return -(-len(given.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN), marks | GUESSED

    return code


def cost_code(model: Code, usage: Code) -> Code:
    """Dollars by the price list; null where the model has no price: it never costs 0."""

    def code(run: Run) -> Marked:
        name, marks = model(run)
        record, more = usage(run)
        if name is None or record is None:
            return NOTHING
        if not isinstance(record, dict) or not isinstance(name, str):
            raise Unmeasurable("cost wants the model's name and a usage record")
        if run.prices is None:
            raise Unmeasurable("there is no price list here")
        dollars = run.prices.cost(name, record, run.view.started_at_ms)
        return NOTHING if dollars is None else (bounded(dollars, 50), marks | more)

    return code
