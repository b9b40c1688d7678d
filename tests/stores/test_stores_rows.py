"""A row has the columns in the order of the fields, whoever writes it out."""

from dataclasses import fields, replace

import pytest

from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import UsageRecord
from gatekeeper.rules.rates import INT64_MAX
from gatekeeper.stores.rows import record_args, record_of

TEXT = {field.name: f"the {field.name}" for field in fields(UsageRecord)}
TEXTS = [
    "call_id",
    "admitted_month",
    "customer_id",
    "key_id",
    "user_id",
    "agent_id",
    "plan_id",
    "route",
    "upstream",
    "model",
    "method",
    "path",
    "note",
    "meter_hash",
    "response_id",
    "model_requested",
]
NUMBERS = [
    "status",
    "started_ms",
    "ended_ms",
    "first_byte_ms",
    "units_micro",
    "cost_nano",
    "request_bytes",
    "response_bytes",
]
RECORD = UsageRecord(
    **{name: TEXT[name] for name in TEXTS},
    **{name: 1_700_000_000_000 + number for number, name in enumerate(NUMBERS)},
    outcome=Outcome.CUT,
    streamed=True,
    source=Mark.ESTIMATED,
    usage={"input": {"total": 3}},
    meters={"units": "3"},
    evidence={"last": [1, None]},
)


def test_each_column_is_its_field():
    row = record_args(RECORD, "[]", 77, 99, "another")
    assert record_of(row) == replace(RECORD, charge_nano=77, overrun_micro=99)
    for field, column in zip(fields(UsageRecord), row, strict=False):
        if field.name in TEXTS:
            assert column == TEXT[field.name]
    assert row[len(fields(UsageRecord)) :] == ("2023-11-14", "another", "[]")


@pytest.mark.parametrize(
    "name", ["user_id", "agent_id", "model", "method", "path", "note", "response_id", "model_requested"]
)
def test_what_no_database_stores_is_replaced_in_whatever_a_stranger_chose(name):
    row = record_args(replace(RECORD, **{name: "a\x00\ud800\u00e9"}), "[]", 0, 0)
    assert record_of(row) == replace(RECORD, **{name: "a\ufffd?\u00e9"})


@pytest.mark.parametrize(
    ("name", "sign"), [("units_micro", 1), ("units_micro", -1), ("cost_nano", 1), ("cost_nano", -1)]
)
def test_a_number_that_does_not_fit_is_named(name, sign):
    with pytest.raises(ValueError, match=f"{name} does not fit 64 bits"):
        record_args(replace(RECORD, **{name: sign * (INT64_MAX + 1)}), "[]", 0, 0)
    with pytest.raises(ValueError, match="charge_nano"):
        record_args(RECORD, "[]", sign * (INT64_MAX + 1), 0)
    with pytest.raises(ValueError, match="overrun_micro"):
        record_args(RECORD, "[]", 0, INT64_MAX + 1)
    assert record_args(replace(RECORD, **{name: sign * INT64_MAX}), "[]", 0, 0)
