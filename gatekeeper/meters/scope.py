"""What the checker found out, for the compiler: types, phases, and which name means which variable."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gatekeeper.meters import tree
from gatekeeper.meters.kinds import ANY, Phase, Shape, Type


@dataclass(eq=False, slots=True)
class Binder:
    """A variable: a ``let`` (with its value) or a parameter. ``place`` is its slot in the frame of a run."""

    name: str
    place: int
    type: Type
    phase: Phase
    span: object
    value: tree.Node | None = None
    shape: Shape = Shape.VALUE
    free: frozenset["Binder"] = frozenset()
    used: bool = False

    @property
    def is_let(self) -> bool:
        """Whether it stands for a value that is written down."""
        return self.value is not None


@dataclass(slots=True)
class Facts:
    """By the identity of a node: its type, its phase, the parameters that it hangs on, what it is bound to.

    ``functions`` maps an argument that is a function to its parameter; ``walks`` says for a call of max or min
    whether it walks a list.
    """

    types: dict[int, Type] = field(default_factory=dict)
    phases: dict[int, Phase] = field(default_factory=dict)
    free: dict[int, frozenset[Binder]] = field(default_factory=dict)
    binders: dict[int, Binder] = field(default_factory=dict)
    functions: dict[int, Binder] = field(default_factory=dict)
    walks: dict[int, bool] = field(default_factory=dict)
    places: int = 0

    def type(self, node: tree.Node) -> Type:
        """Its static type."""
        return self.types.get(id(node), ANY)

    def phase(self, node: tree.Node) -> Phase:
        """When it has a value."""
        return self.phases.get(id(node), Phase.ALWAYS)

    def hangs_on(self, node: tree.Node) -> frozenset[Binder]:
        """The parameters that it reads."""
        return self.free.get(id(node), frozenset())

    def unlet(self, node: tree.Node) -> tree.Node:
        """The node that a variable stands for; any other node as it is."""
        while isinstance(node, tree.Name):
            binder = self.binders.get(id(node))
            if binder is None or binder.value is None:
                break
            node = binder.value
        return node


@dataclass(frozen=True, slots=True)
class Scope:
    """The variables that can be seen, and what ``#`` means here."""

    names: Mapping[str, Binder] = field(default_factory=dict)
    item: Binder | None = None

    def having(self, binder: Binder, *, item: bool = False) -> "Scope":
        """This scope with one more variable."""
        return Scope({**self.names, binder.name: binder}, binder if item else self.item)

    def within(self, item: Binder) -> "Scope":
        """This scope with another ``#``."""
        return Scope(self.names, item)
