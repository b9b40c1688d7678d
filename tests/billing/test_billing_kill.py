"""A flusher is killed before each of its steps, all of them, one after the other: whoever comes next loses nothing and
counts nothing twice.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KILLER = Path(__file__).with_name("billing_killer.py")
# Each is met before the step is made; "return" comes after a commit.
STEPS = {
    "elect",
    "owing",
    "ensure_account",
    "lock_account",
    "take_owed",
    "batch_sums",
    "add_batch",
    "set_residue",
    "claim_accounts",
    "due_of_account",
    "begin_batch",
    "lease_account",
    "report",
    "answer",
    "free_account",
    "sent_batch",
    "commit",
    "return",
}


def test_a_kill_between_any_two_steps_loses_nothing_and_counts_nothing_twice(store_url, tmp_path, sql):
    """Pitfall 2: a crash after the biller has accepted. Pitfall 3: a crash before it was asked."""
    paper = tmp_path / "paper.jsonl"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(KILLER.parent)])
    done = subprocess.run(
        [sys.executable, str(KILLER), store_url, str(paper)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    *killed, last = done.stdout.split("\n")[:-1]
    assert last == "done"
    met = Counter(line.removeprefix("killed ") for line in killed)
    assert met.keys() >= STEPS
    assert len(killed) >= 40

    lines = [json.loads(line) for line in paper.read_text().splitlines()]
    identifiers = Counter(line["identifier"] for line in lines)
    assert identifiers.most_common(1)[0][1] == 1
    told = Counter()
    for line in lines:
        told[line["customer_id"]] += int(line["units"])
    # Two rounds for each kill, and for the one that lived.
    rounds = 2 * (len(killed) + 1)
    for name, units in (("ada", "1.75"), ("bob", "3.5")):
        used = Decimal(units) * rounds
        ((left,),) = sql(f"SELECT residue_micro FROM meter_account WHERE customer_id = '{name}'")
        assert told[name] + Decimal(int(left)) / 1_000_000 == used
        assert told[name] == int(used)
    assert sql("SELECT COUNT(*) FROM owed WHERE batch_id IS NULL") == [(0,)]
    assert sql("SELECT DISTINCT state FROM meter_batch ORDER BY 1") in ([("sent",)], [("empty",), ("sent",)])
