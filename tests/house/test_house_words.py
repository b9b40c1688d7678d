"""Names and docstrings: every room says what it is for, and no name says less than the thing is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from house_files import ROOT, complain, place, project_files, python_files, tree

# Words that say nothing about what is inside.
HOLLOW = frozenset(
    {"util", "utils", "helper", "helpers", "common", "core", "base", "manager", "managers"}
    | {"service", "services", "handler", "handlers"}
)
HOLLOW_FILES = HOLLOW | {"data", "info", "misc"}
# Put together here so that this file does not contain what it forbids.
_MACHINE_TOPS = ("wo" "rk", "ro" "ot", "fa" "rm", "ho" "me", "Us" "ers")  # fmt: skip
MACHINE_PATH = re.compile(rf"(?<![\w.}}*~:/-])/(?:{'|'.join(_MACHINE_TOPS)})/\w|\b[A-Z]:\\Us" + "ers")

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def words(name: str) -> set[str]:
    """The words of a name, in snake_case or CamelCase."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


def definitions(module: ast.Module) -> Iterator[Definition]:
    """Classes and functions of a module and of its classes; not those inside functions, nor those that only the type
    checker sees."""
    queue: list[ast.AST] = [module]
    while queue:
        for node in ast.iter_child_nodes(queue.pop()):
            if isinstance(node, Definition):
                yield node
            only_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if isinstance(node, ast.ClassDef | ast.If | ast.Try) and not only_types:
                queue.append(node)


def undocumented(path: Path, module: ast.Module) -> Iterator[str]:
    """Public names without a docstring, but not overloads, nor setters (described at the getter), nor a method that a
    class above or a Protocol of the same module describes."""
    classes = {node.name: node for node in definitions(module) if isinstance(node, ast.ClassDef)}
    owners = {id(child): owner for owner in classes.values() for child in owner.body}
    for node in definitions(module):
        owner = owners.get(id(node))
        private = node.name.startswith("_") or (owner is not None and owner.name.startswith("_"))
        marks = {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in node.decorator_list}
        if private or ast.get_docstring(node) or marks & {"overload", "override", "setter"}:
            continue
        promised = owner is not None and any(
            described(node.name, promise)
            for promise in classes.values()
            if "Protocol" in map(ast.unparse, promise.bases)
        )
        if not promised and (owner is None or not described_above(node.name, owner, classes)):
            yield f"{place(path, node)} {node.name}"


def described_above(name: str, owner: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether a class that ``owner`` derives from, in the same module, documents a method of this name."""
    for above in owner.bases:
        parent = classes.get(ast.unparse(above).split("[")[0])
        if parent is None or parent is owner:
            continue
        if described(name, parent) or described_above(name, parent, classes):
            return True
    return False


def described(name: str, owner: ast.ClassDef) -> bool:
    """Whether a class documents its method of this name."""
    own = (node for node in owner.body if isinstance(node, Definition) and node.name == name)
    return any(ast.get_docstring(node) for node in own)


def test_every_module_opens_with_a_docstring():
    offenders = [
        place(path) for path in python_files("gatekeeper", "tests", "bench") if not ast.get_docstring(tree(path))
    ]
    assert not offenders, complain(offenders, "A module opens with what lives here and the rule it keeps:")


def test_every_public_class_and_function_has_a_docstring():
    offenders = [offender for path in python_files("gatekeeper") for offender in undocumented(path, tree(path))]
    assert not offenders, complain(offenders, "Public names have a docstring:")


def test_no_file_has_a_hollow_name():
    tops = [ROOT / room for room in ("gatekeeper", "tests", "bench")]
    inside = [path.relative_to(ROOT) for path in project_files() if any(path.is_relative_to(top) for top in tops)]
    offenders = [
        path.as_posix() for path in inside if any(words(part.split(".")[0]) & HOLLOW_FILES for part in path.parts)
    ]
    assert not offenders, complain(offenders, f"Not used in the names of files ({', '.join(sorted(HOLLOW_FILES))}):")


def test_no_class_or_function_has_a_hollow_name():
    offenders = [
        f"{place(path, node)} {node.name}"
        for path in python_files("gatekeeper")
        for node in ast.walk(tree(path))
        if isinstance(node, Definition) and words(node.name) & HOLLOW
    ]
    assert not offenders, complain(offenders, f"Not used in names ({', '.join(sorted(HOLLOW))}):")


def test_no_file_names_a_place_on_one_machine():
    offenders = []
    for path in project_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        shown = path.relative_to(ROOT).as_posix()
        offenders += [
            f"{shown}:{number} {line.strip()[:100]}"
            for number, line in enumerate(lines, 1)
            if MACHINE_PATH.search(line)
        ]
    assert not offenders, complain(offenders, "Paths of one machine mean nothing on another:")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("open_hold", {"open", "hold"}),
        ("KeyManager", {"key", "manager"}),
        ("HTTPBase", {"http", "base"}),
        ("database", {"database"}),
    ],
)
def test_words_of_names_are_told_apart(name, expected):
    assert words(name) == expected


@pytest.mark.parametrize("top", _MACHINE_TOPS)
@pytest.mark.parametrize("line", ["see /{}/x.py", "'/{}/main'", "open('/{}/me/x')", "(/{}/me)"])
def test_a_machine_path_is_seen(top, line):
    assert MACHINE_PATH.search(line.format(top))


@pytest.mark.parametrize(
    "line", ["https://example.com/home/page", "gatekeeper/home/x", "/rooted/x", "~/work/x", "/v1/work"]
)
def test_an_ordinary_path_is_no_machine_path(line):
    assert not MACHINE_PATH.search(line)


def test_a_missing_docstring_is_seen():
    source = """
class A:
    def b(self): ...
    def _c(self): ...
class _D:
    def e(self): ...
class F(A):
    "Said."
    def b(self): ...
    def g(self):
        "Said."
class H(F):
    "Said."
    def g(self): ...
def i():
    def inside(): ...
class P(Protocol):
    "Said."
    def j(self): "Said."
    def k(self): ...
class Q:
    "Said."
    def j(self): ...
    def k(self): ...
    if TYPE_CHECKING:
        def l(self): ...
"""
    seen = sorted(offender.rsplit(" ", 1)[1] for offender in undocumented(Path(__file__), ast.parse(source)))
    assert seen == ["A", "b", "b", "i", "k", "k"]
