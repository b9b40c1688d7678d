"""A short run of everything that ``python -m bench.chaos`` does: real gateways, killed, crowded, cut off and filled up.

What runs on both databases runs on both at once. The seed of each run is printed with its failure.
"""

import asyncio
import random

import pytest
from fakes.cluster import Cluster, binaries, execute

from bench.chaos import points
from bench.chaos_crossing import Crossing, crossing
from bench.chaos_outages import Outage, away, full, restarts
from bench.chaos_rounds import Rounds, kill_rounds
from bench.chaos_streams import Crowd, crowd

SEED = random.randrange(10**6)


@pytest.fixture
def urls(sqlite_url, empty_postgres_url):
    """One empty database of each kind."""
    return sqlite_url, empty_postgres_url


@pytest.fixture
def outage(tmp_path):
    """Short ones."""
    return Outage(tmp_path, SEED, clients=12, restarts=1, away_s=5.5, fillings=1)


@pytest.fixture(scope="module")
def cluster():
    """A Postgres of these tests alone: it is cut off."""
    found = binaries()
    if found is None:
        pytest.skip("no Postgres binaries")
    cluster = Cluster(found, "fsync=off", "full_page_writes=off")
    yield cluster
    cluster.stop()


def made(cluster, name):
    """The URL of a database on it."""
    execute(cluster.dsn, f"CREATE DATABASE {name}")
    return cluster.dsn.replace("/postgres?", f"/{name}?")


def judged(*scenarios):
    """Run them side by side; nothing may be wrong."""
    said = []

    async def together():
        return await asyncio.gather(*(scenario(said.append) for scenario in scenarios))

    for report in asyncio.run(together()):
        assert report.wrong == [], (report.name, report.figures, said)


def test_what_clients_saw_complete_is_on_record_once_however_often_the_gateway_is_killed(urls, tmp_path):
    def rounds(url):
        folder = tmp_path / url.partition(":")[0]
        folder.mkdir()
        return lambda say: kill_rounds(Rounds(folder, url, SEED, rounds=5, clients=12), say)

    judged(*(rounds(url) for url in urls))


def test_a_death_at_any_point_of_any_deed_leaves_all_or_nothing(urls):
    judged(*(lambda say, url=url: points(url) for url in urls))


@pytest.mark.parametrize(("kind", "workers"), [("sqlite", 1), ("sqlite", 4), ("postgres", 4)])
def test_of_1000_streams_before_five_dollars_fifty_are_let_in_at_once(request, tmp_path, kind, workers):
    url = request.getfixturevalue("sqlite_url" if kind == "sqlite" else "empty_postgres_url")
    judged(lambda say: crowd(Crowd(tmp_path, url, SEED, streams=1_000, workers=workers, again=1), say))


def test_opposite_orders_of_locks_neither_deadlock_nor_lose_anything(urls):
    judged(*(lambda say, url=url: crossing(Crossing(url, SEED, seconds=5, processes=2), say) for url in urls))


def test_restarts_of_postgres_under_load_lose_nothing(cluster, outage):
    url = made(cluster, "restarts")
    judged(lambda say: restarts(outage, cluster, url, say))


def test_an_outage_longer_than_a_hold_lives_loses_nothing_and_cuts_nobody(cluster, outage):
    url = made(cluster, "away")
    judged(lambda say: away(outage, cluster, url, say))


def test_a_full_disk_refuses_or_journals_and_damages_nothing(outage):
    judged(lambda say: full(outage, say))
