"""No file over 600 lines, no function over 70: what does not fit on a screen is two things."""

import ast
from collections.abc import Iterator
from pathlib import Path

from house_files import complain, place, python_files, tree

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
ROOMS = ("gatekeeper", "tests", "bench")


def long_functions(path: Path, module: ast.Module) -> Iterator[str]:
    """From ``def`` to the last line: decorators do not count, the docstring does."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{place(path, node)} {node.name}: {length} lines"


def test_no_file_is_too_long():
    lengths = {path: len(path.read_bytes().splitlines()) for path in python_files(*ROOMS)}
    offenders = [f"{place(path)}: {length} lines" for path, length in lengths.items() if length > FILE_LINES_MAX]
    assert not offenders, complain(offenders, f"Files may have {FILE_LINES_MAX} lines:")


def test_no_function_is_too_long():
    offenders = [offender for path in python_files(*ROOMS) for offender in long_functions(path, tree(path))]
    assert not offenders, complain(offenders, f"Functions may have {FUNCTION_LINES_MAX} lines:")


def test_the_measure_counts_from_def_to_end():
    body = "    x = 1\n" * (FUNCTION_LINES_MAX - 1)
    fits = f"@decorated(\n    1,\n)\nasync def fits():\n{body}"
    assert list(long_functions(Path(__file__), ast.parse(fits))) == []
    outer = f"class Holder:\n    def outer(self):\n{body.replace('    x', '        x')}        return x\n"
    (found,) = long_functions(Path(__file__), ast.parse(outer))
    assert found.endswith(":2 outer: 71 lines")
