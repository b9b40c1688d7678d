"""A batch whose fate has been unknown for a day: what the biller's own sums say of it, and nothing else decides.

The rule: what cannot be told apart is neither sent again nor taken for sent; a person looks.
"""

from gatekeeper.ports import Biller, Outbox
from gatekeeper.rules.billing import Batch, Compared, compared, minute_of

UNCLEAR = (
    "it was sent more than a day ago with an unknown outcome, and the biller's sums do not tell whether it was "
    "counted: see there, then 'outbox retry ID --told' or '--unsent'"
)


async def compare(outbox: Outbox, biller: Biller, batch: Batch) -> Compared:
    """Ask the biller what it has counted in the minute of ``batch``, against what was sent in it. Raises Fault and
    ``NotTaken``."""
    start_ms, end_ms = minute_of(batch.ts_ms)
    beside = await outbox.batches_beside(batch, start_ms, end_ms)
    return compared(batch, beside, await biller.summary(batch, start_ms, end_ms))
