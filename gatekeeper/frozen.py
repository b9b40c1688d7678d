"""Records that are made for every call: frozen for the type checker, and quick to make.

The rule: a record is never changed. mypy refuses it for these as for any frozen dataclass. At run time nothing stands
in the way, because that costs: `object.__setattr__` for each field is two thirds of the time that such a record takes,
and a call makes a dozen of up to thirty fields.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    from dataclasses import dataclass

    def record(*, frozen, slots):
        """``dataclasses.dataclass`` with the same equality and hash."""
        assert frozen
        return dataclass(slots=slots, unsafe_hash=True)


__all__ = ["record"]
