"""Enough of Markdown to hold the documentation to its word: fenced blocks, tables and links."""

import re
from dataclasses import dataclass
from pathlib import Path

from house_files import ROOT

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([\w-]*)[^\n`]*\n(.*?)^ {0,3}\1[`~]*\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block. ``where`` is file:line of its first line of content."""

    where: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line of a console example after its ``$``, with the output that is shown under it."""

    where: str
    line: str
    shown: str


def blocks(text: str, name: str) -> list[Block]:
    """All fenced blocks of a page."""
    return [
        Block(f"{name}:{text.count(chr(10), 0, found.start(3)) + 1}", found[2], found[3])
        for found in _FENCE.finditer(text)
    ]


def pages() -> list[Path]:
    """The pages that make promises: README, docs, deploy, and the map of the package."""
    return sorted(
        [
            ROOT / "README.md",
            *ROOT.glob("gatekeeper/README.md"),
            *ROOT.glob("docs/**/*.md"),
            *ROOT.glob("deploy/**/*.md"),
        ]
    )


def all_blocks() -> list[Block]:
    """The fenced blocks of all pages."""
    return [
        block
        for page in pages()
        for block in blocks(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())
    ]


def commands(block: Block) -> list[Command]:
    """The commands of a console block; a line that ends in a backslash goes on in the next."""
    page, _, first = block.where.rpartition(":")
    found: list[tuple[int, str, list[str]]] = []
    continued = False
    for number, line in enumerate(block.text.splitlines(), int(first)):
        if continued:
            at, said, shown = found[-1]
            found[-1] = (at, said.removesuffix("\\") + line.removeprefix(">").strip(), shown)
        elif line.startswith("$ "):
            found.append((number, line[2:].strip(), []))
        elif found:
            found[-1][2].append(line)
        continued = bool(found) and not found[-1][2] and line.endswith("\\")
    return [Command(f"{page}:{at}", said, "\n".join(shown).rstrip()) for at, said, shown in found]


def agrees(shown: str, printed: str) -> bool:
    """Whether a program printed what is shown, where ``...`` stands for anything (white space at line ends aside)."""
    wanted = [".*?".join(map(re.escape, line.rstrip().split("..."))) for line in shown.strip().splitlines()]
    printed = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return re.fullmatch("\n".join(wanted), printed, re.DOTALL) is not None


def tables(text: str) -> list[list[dict[str, str]]]:
    """Every table as its rows, keyed by the lower-case heads of its columns."""
    outside = _FENCE.sub("", text)
    found = []
    for lines in re.findall(r"(?:^ {0,3}\|.*\n?)+", outside, re.MULTILINE):
        rows = [_cells(line) for line in lines.strip().splitlines()]
        if len(rows) > 2 and all(re.fullmatch(r":?-+:?", cell) for cell in rows[1]):
            heads = [cell.lower() for cell in rows[0]]
            found.append([dict(zip(heads, row, strict=False)) for row in rows[2:]])
    return found


def links(text: str) -> list[str]:
    """The targets of links outside of fenced blocks."""
    return _LINK.findall(_FENCE.sub("", text))


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
