"""A quick record is a frozen dataclass in all that a program can see of it."""

from dataclasses import fields, replace

from gatekeeper.frozen import record


@record(frozen=True, slots=True)
class Point:
    """A record."""

    x: int
    y: int = 0


def test_a_record_compares_hashes_and_is_copied_as_a_frozen_dataclass():
    one = Point(1)
    assert one == Point(1, 0) and one != Point(2) and hash(one) == hash(Point(1, 0))
    assert replace(one, y=3) == Point(1, 3) and one == Point(1)
    assert [field.name for field in fields(one)] == ["x", "y"]


def test_a_record_has_slots():
    assert not hasattr(Point(1), "__dict__")
