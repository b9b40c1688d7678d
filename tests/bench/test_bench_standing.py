"""The short forms of the soak, of the mixed load and of the open streams, with real processes and the official SDKs.

They look for what is wrong, lost or leaked. How quick anything is depends on the machine, and is judged by hand.
"""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import mixed, scale, soak, streams
from gatekeeper.cli.process import raised_limits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process has open is read from /proc")
# One that does not change, so that a failure can be had again.
SEED = 5


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised_limits()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_gateway_in_trouble_loses_leaks_and_holds_nothing(tmp_path: Path):
    plan = soak.Plan(tmp_path, 20.0, "sqlite", SEED, calibration_s=1.0)
    report = soak.run(plan, lambda _: None)
    assert report.wrong == []
    assert report.figures["doctor"] == "ok"
    assert report.figures["calls: complete"] > 100
    assert report.figures["reloads"] + report.figures["refused reloads"] > 0
    assert report.figures["revocations"] > 0
    # Of every kind of trouble there was some.
    assert {"calls: left", "calls: cut off", "calls: 500", "calls: 504 upstream_timeout"} <= report.figures.keys()


def test_no_byte_and_no_charge_is_wrong_also_with_the_official_sdks(tmp_path: Path):
    report = mixed.run(mixed.Plan(tmp_path, 5.0, "sqlite", SEED, connections=8), lambda _: None)
    assert report.wrong == []
    assert report.figures["calls of the SDKs: messages async"] > 0
    assert report.figures["calls"] == report.figures["records"] == report.figures["calls: complete"]


def test_two_hundred_silent_streams_end_well_and_slow_readers_are_bounded(tmp_path: Path):
    plan = streams.Plan(tmp_path, "sqlite", SEED, streams=200, quiet_s=1.0, slow=10, slow_s=1.0, rounds=1)
    # p99 on a machine that does other things, too, is no figure.
    report = streams.run(plan, lambda _: None)
    assert [said for said in report.wrong if not said.startswith("the p99 of others")] == []
    assert report.figures["ended well"] == 200


def test_a_database_of_many_customers_is_made_of_what_the_gateway_wrote(tmp_path: Path):
    report = scale.run(tmp_path, lambda _: None, ((10, 1), (2_000, 5_000)), rounds=1, seconds=0.3)
    assert [said for said in report.wrong if "times as much" not in said] == []
    assert "2,000 customers, 5,000 records" in report.figures
