"""A short run of ``python -m bench.billing``: whoever reports usage is killed at random, and Stripe's sums are the
ledger's. On both databases at once. Every single step is killed at in ``tests/billing``.
"""

import asyncio
import random

from bench.billing import rounds_of

SEED = random.randrange(10**6)
ROUNDS = 5


def test_random_kills_of_reporting_lose_nothing_and_count_nothing_twice(sqlite_url, empty_postgres_url):
    """Pitfall 2, Pitfall 3, Pitfall 5 and Pitfall 6: killed anywhere, for a second or a day."""

    async def both():
        return await asyncio.gather(*(rounds_of(url, SEED, ROUNDS) for url in (sqlite_url, empty_postgres_url)))

    for report in asyncio.run(both()):
        assert report.wrong == [], (SEED, report)
        assert report.figures["drift"] == 0
        assert report.figures["calls"] > 0
        assert report.figures["accepted"] > 0
