"""What tests ask of a page that is open in a browser."""

from pathlib import Path
from typing import Any

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
# What a person cannot work with; the rest is advice.
GRAVE = frozenset({"serious", "critical"})


def faults(page: Any) -> list[str]:
    """What axe-core finds that keeps somebody out. The debugger puts it in, which no Content-Security-Policy binds."""
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for each in found
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


def scrolls_sideways(page: Any) -> bool:
    """Whether the page itself is wider than the window."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth + 1")
    return wide
