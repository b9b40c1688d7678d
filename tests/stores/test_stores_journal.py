"""The journal: what waits there is durable, is settled once, and survives its process."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatekeeper.errors import Fault
from gatekeeper.stores.journal import FileJournal


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def test_a_line_survives_its_process_and_is_given_to_one_other(tmp_path: Path, make):
    async def body() -> None:
        dead, first, second = (FileJournal(tmp_path / "journal", name) for name in ("host:1:a", "host:2:b", "host:3:c"))
        kept = make.settlement("call_1", 7_000_000, evidence={"usage()": {"total": 7}}, note="ä")
        await dead.append(kept)
        assert await first.orphans() == [], "its owner lives"
        os.close(dead._file)  # as the kernel does for a process that is killed
        (found,) = await first.orphans()
        assert (found.record, dict(found.actual), found.now_ms) == (kept.record, kept.actual, kept.now_ms)
        assert await second.orphans() == [], "it is claimed"
        await first.done("call_1")
        assert files(tmp_path / "journal") == []
        await first.close()
        await second.close()

    asyncio.run(body())


def test_what_the_ledger_has_leaves_the_file(tmp_path: Path, make):
    async def body() -> None:
        journal = FileJournal(tmp_path, "me")
        await journal.append(make.settlement("a"))
        await journal.append(make.settlement("b"))
        (file,) = files(tmp_path)
        assert file.read_bytes().count(b"\n") == 2
        assert file.stat().st_mode & 0o077 == 0
        await journal.done("a")
        assert file.read_bytes().count(b"\n") == 2
        await journal.done("b")
        assert file.read_bytes() == b""
        await journal.append(make.settlement("c"))
        assert file.read_bytes().count(b"\n") == 1
        await journal.done("c")
        await journal.close()
        assert files(tmp_path) == []

    asyncio.run(body())


def test_of_a_call_that_was_opened_and_has_ended_the_end_counts(tmp_path: Path, make):
    async def body() -> None:
        dead, heir = FileJournal(tmp_path, "host:1:a"), FileJournal(tmp_path, "host:2:b")
        for call_id, units_micro in (("a", 1), ("b", 2), ("a", 3)):
            await dead.append(make.settlement(call_id, units_micro))
        os.close(dead._file)
        found = [(one.record.call_id, one.record.units_micro) for one in await heir.orphans()]
        assert sorted(found) == [("a", 3), ("b", 2)]
        await heir.close()

    asyncio.run(body())


def test_half_a_line_is_passed_over_and_the_rest_is_found(tmp_path: Path, make, caplog):
    async def body() -> None:
        journal = FileJournal(tmp_path, "me")
        await journal.append(make.settlement("whole"))
        os.write(journal._file, b'{"record": {"call_id": "hal')
        os.close(journal._file)
        other = FileJournal(tmp_path, "you")
        assert [one.record.call_id for one in await other.orphans()] == ["whole"]
        await other.close()
        # Not settled by then: it is left for whoever comes next.
        third = FileJournal(tmp_path, "they")
        assert [one.record.call_id for one in await third.orphans()] == ["whole"]
        await third.done("whole")
        await third.close()

    asyncio.run(body())
    assert "cannot be read" in caplog.text


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path: Path, make):
    (tmp_path / "file").write_text("")

    async def body() -> None:
        journal = FileJournal(tmp_path / "file" / "journal", "me")
        with pytest.raises(Fault, match="journal"):
            await journal.append(make.settlement("a"))
        assert await FileJournal(tmp_path / "nothing", "me").orphans() == []

    asyncio.run(body())


CRASH = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from conftest import Make
from gatekeeper.stores.journal import FileJournal

async def main():
    journal = FileJournal(Path(sys.argv[1]), "child")
    for number in range(5):
        await journal.append(Make.settlement(f"call_{number}"))
        print(number, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_every_line_that_was_promised_is_there_after_a_kill(tmp_path: Path):
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path), str(here), str(here.parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["0", "1", "2", "3", "4"], done.stderr

    async def body() -> None:
        journal = FileJournal(tmp_path, "heir")
        assert {one.record.call_id for one in await journal.orphans()} == {f"call_{number}" for number in range(5)}
        await journal.close()

    asyncio.run(body())
