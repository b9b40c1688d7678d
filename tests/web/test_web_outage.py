"""The ledger goes away while calls are in flight: answers end, records are kept, and nothing is counted twice."""

import fcntl
import json
import os
from pathlib import Path

import httpx
from fakes.origin import Asked, Line
from fakes.stand import running

from gatekeeper.meters import Mark

USAGE = {"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
ASK = {"model": "m", "messages": []}


class Outage:
    """Nobody can write into the database while it lasts: the writers' gate is held by somebody else."""

    def __init__(self, database: Path) -> None:
        self._file = os.open(f"{database}.lock", os.O_RDWR)

    def begin(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def end(self) -> None:
        os.close(self._file)


def test_a_call_ends_on_the_journal_while_the_ledger_is_away_and_is_settled_when_it_is_back(tmp_path):
    database = tmp_path / "gateway.sqlite"
    outages: list[Outage] = []

    async def behave(asked: Asked, line: Line) -> None:
        outages.append(Outage(database))
        outages[0].begin()
        body = json.dumps(USAGE).encode()
        await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
        await line.send(body)

    journal = tmp_path / "waiting"
    with running(tmp_path, behave, ledger=f'journal = "{journal}"\nhold_ttl_s = 60') as stand:
        try:
            key = {"Authorization": f"Bearer {stand.key}"}
            answer = httpx.post(f"{stand.url}/v1/chat/completions", json=ASK, headers=key, timeout=15)
            assert answer.json() == USAGE
            (file,) = journal.iterdir()
            (line,) = file.read_bytes().splitlines()
            assert json.loads(line)["record"]["units_micro"] == 7_000_000
            assert stand.records() == []
        finally:
            outages[0].end()
        record = stand.record()
        assert (record.units_micro, record.source, record.note) == (7_000_000, Mark.MEASURED, None)
        assert stand.held_micro() == 0
    assert list(journal.iterdir()) == []
