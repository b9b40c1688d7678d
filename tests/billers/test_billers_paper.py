"""The biller on paper: what it would send is on the disk, each identifier once, whoever writes and whoever dies."""

import asyncio
import json
import os
from dataclasses import replace

import pytest

from gatekeeper.billers.paper import PaperBiller
from gatekeeper.errors import Fault
from gatekeeper.rules.billing import Batch, BatchState, Reported

TS_MS = 1_781_524_800_000
BATCH = Batch(
    id="mb_1",
    customer_id="ada",
    meter="m",
    period_start_ms=1,
    period_end_ms=2,
    value=7,
    ts_ms=TS_MS + 500,
    identifier="mb_1",
    state=BatchState.WAITING,
    late=False,
    carried_micro=0,
    left_micro=0,
    created_ms=0,
    next_ms=0,
)
MINUTE = (TS_MS, TS_MS + 60_000)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_is_one_line_and_a_duplicate_none(tmp_path):
    """Pitfall 1: what the biller has is not counted again."""
    path = tmp_path / "deep" / "paper.jsonl"
    biller = PaperBiller(path)

    async def body():
        assert await biller.summary(BATCH, *MINUTE) == 0
        assert await biller.report(BATCH) is Reported.ACCEPTED
        assert await biller.report(BATCH) is Reported.DUPLICATE
        # Another process, that has not written it.
        assert await PaperBiller(path).report(BATCH) is Reported.DUPLICATE
        await biller.close()

    asyncio.run(body())
    assert lines(path) == [
        {
            "identifier": "mb_1",
            "customer_id": "ada",
            "meter": "m",
            "units": "7",
            "ts_ms": TS_MS + 500,
            "period_start_ms": 1,
            "late": False,
        }
    ]
    assert path.stat().st_mode & 0o077 == 0


def test_sums_are_of_one_customer_meter_and_minute(tmp_path):
    biller, other = PaperBiller(tmp_path / "p"), PaperBiller(tmp_path / "p")

    async def body():
        for number, changes in enumerate(
            [{}, {"value": 5}, {"customer_id": "bob"}, {"meter": "n"}, {"ts_ms": TS_MS + 60_000}, {"ts_ms": TS_MS - 1}]
        ):
            await (other if number % 2 else biller).report(replace(BATCH, identifier=f"i{number}", **changes))
        assert await biller.summary(BATCH, *MINUTE) == 12
        assert await other.summary(BATCH, *MINUTE) == 12

    asyncio.run(body())


def test_two_that_write_at_once_tear_no_line(tmp_path):
    billers = [PaperBiller(tmp_path / "p") for _ in range(4)]

    async def body():
        reports = [biller.report(replace(BATCH, identifier=f"i{n}")) for n in range(25) for biller in billers]
        answers = await asyncio.gather(*reports)
        assert answers.count(Reported.ACCEPTED) == 25

    asyncio.run(body())
    assert sorted(line["identifier"] for line in lines(tmp_path / "p")) == sorted(f"i{n}" for n in range(25))


def test_half_a_line_of_one_who_was_killed_was_never_reported(tmp_path):
    """Pitfall 2 and 3: what has no end is written again, whole."""
    path = tmp_path / "p"

    async def body():
        await PaperBiller(path).report(BATCH)
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:-20].replace(b"mb_1", b"mb_2"))
        biller = PaperBiller(path)
        assert await biller.summary(BATCH, *MINUTE) == 7
        assert await biller.report(replace(BATCH, identifier="mb_2")) is Reported.ACCEPTED
        assert await biller.summary(BATCH, *MINUTE) == 14

    asyncio.run(body())
    assert [line["identifier"] for line in lines(path)] == ["mb_1", "mb_2"]


def test_a_file_that_was_put_away_begins_anew(tmp_path):
    path = tmp_path / "p"
    biller = PaperBiller(path)

    async def body():
        await biller.report(BATCH)
        os.truncate(path, 0)
        assert await biller.report(BATCH) is Reported.ACCEPTED

    asyncio.run(body())
    assert len(lines(path)) == 1


@pytest.mark.parametrize("content", [b"no json\n", b"{}\n"])
def test_a_file_that_is_no_paper_is_a_fault(tmp_path, content):
    path = tmp_path / "p"
    path.write_bytes(content)
    with pytest.raises(Fault, match="paper cannot be written"):
        asyncio.run(PaperBiller(path).report(BATCH))
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_a_fault(tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(Fault, match="biller: store"):
        asyncio.run(PaperBiller(tmp_path / "folder" / "p").report(BATCH))


def test_only_so_many_identifiers_are_kept_in_memory(tmp_path):
    path = tmp_path / "p"
    biller = PaperBiller(path, identifiers_max=2)

    async def body():
        for number in (1, 2, 3):
            assert await biller.report(replace(BATCH, identifier=f"i{number}")) is Reported.ACCEPTED
        assert await biller.report(replace(BATCH, identifier="i2")) is Reported.DUPLICATE
        assert await biller.summary(BATCH, *MINUTE) == 21

    asyncio.run(body())
