"""What a lane remembers between its batches: rows that exist, holds as they were made, and figures.

The rule: figures and states decide only where nobody can have changed them. A database that can tell gives a stamp (see
``database.Stamp``) under its write lock: where it is still the one of our last commit, what was written then is what
stands there now. Where it is another one, or where a database has none, everything is read again under its locks.
"""

from collections.abc import Iterable, Mapping

from gatekeeper.rules.holds import Hold
from gatekeeper.rules.limits import BucketKey, BucketRow, CounterKey, CounterRow
from gatekeeper.stores.database import Row, Rows
from gatekeeper.stores.rows import HoldRow, hold_of

# About 30 MB, and as much for holds; then it starts anew, which costs one INSERT or one look-up a row.
ROWS_MAX = 100_000
HOLDS_MAX = 20_000


class Vanished(Exception):
    """What was taken for granted is not so: a row is gone that was there, or a new call is there. Ask and try again."""


class Known:
    """Of one lane. Changed only by its batches, after their commits."""

    __slots__ = ("bucket_rows", "buckets", "counter_rows", "counters", "hold_rows", "holds", "stamp")

    def __init__(self) -> None:
        # Rows that exist, so that they need not be made again.
        self.counters: set[CounterKey] = set()
        self.buckets: set[BucketKey] = set()
        # What the lines of open holds were before they became a text, by the text itself, so that what was changed
        # behind our back is read anew.
        self.holds: dict[str, tuple[str, int, Hold, HoldRow]] = {}
        # True for as long as the stamp is.
        self.stamp: Row = ()
        self.counter_rows: dict[CounterKey, CounterRow] = {}
        self.bucket_rows: dict[BucketKey, BucketRow] = {}
        self.hold_rows: dict[str, HoldRow] = {}

    def is_fresh(self, stamp: Rows) -> bool:
        """Whether the figures still stand in the database; they are dropped if not. Whoever asks may change them in
        place: until ``remember`` says that this was committed, nobody relies on them."""
        if stamp and stamp[0] == self.stamp:
            self.stamp = ()
            return True
        self._drop_figures()
        return False

    def remember(
        self,
        stamp: Rows,
        counters: Iterable[CounterKey],
        buckets: Iterable[BucketKey],
        made: Mapping[str, tuple[str, int, Hold, HoldRow]],
        changed: Mapping[str, HoldRow],
        gone: Iterable[str],
    ) -> None:
        """After a commit that ended with this ``stamp``, and left the figures as they are here now: rows that were seen
        to exist, holds that were ``made``, that were made or ``changed``, and that are open no more."""
        if len(self.counters) + len(self.buckets) > ROWS_MAX or len(self.holds) + len(self.hold_rows) > 2 * HOLDS_MAX:
            self.forget()
        self.counters.update(counters)
        self.buckets.update(buckets)
        self.holds.update(made)
        if not stamp:
            self._drop_figures()
            return
        self.stamp = stamp[0]
        self.hold_rows.update(changed)
        for call_id in gone:
            self.hold_rows.pop(call_id, None)

    def forget_holds(self, gone: Iterable[str]) -> None:
        """Calls whose end cannot be lost any more. Until then a crash of Postgres may take both it and the hold, and
        whoever tells the end again must find the lines."""
        for call_id in gone:
            self.holds.pop(call_id, None)

    def hold(self, row: HoldRow) -> Hold:
        """The lines of a row, parsed only if this process did not write them."""
        known = self.holds.get(row.call_id)
        if known is not None and known[0] == row.lines and known[1] == row.output_tokens:
            return known[2]
        return hold_of(row)

    def doubt(self) -> None:
        """Rows that are known to exist may be gone."""
        self.counters.clear()
        self.buckets.clear()
        self._drop_figures()

    def forget(self) -> None:
        """All of it."""
        self.doubt()
        self.holds.clear()

    def _drop_figures(self) -> None:
        self.stamp = ()
        self.counter_rows.clear()
        self.bucket_rows.clear()
        self.hold_rows.clear()
