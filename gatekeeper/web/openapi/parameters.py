"""Parameters of the query that many operations have."""

from gatekeeper.web.openapi.operation import Query
from gatekeeper.web.openapi.schemas import DAY, TEXT, one_of

AFTER = Query("after", "The `next` of the page before.", TEXT)
LIMIT = Query("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100})
PERIOD = (
    Query("period", "Instead of `start` and `end`.", one_of(("current_month", "last_30_days"))),
    Query("start", "The first day.", DAY),
    Query("end", "The last day, inclusive.", DAY),
)
