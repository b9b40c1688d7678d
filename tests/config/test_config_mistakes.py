"""The gallery: each ``mistakes/NAME.toml`` beside the exact message that its author gets. ``plan-*`` are plan files.

Read the .txt files to judge our manners. A changed message is changed here by hand, after reading it.
"""

from pathlib import Path

import pytest

from gatekeeper.config.plans import read_plan
from gatekeeper.config.read import parse_gateway
from gatekeeper.diagnostics import Mistakes

GALLERY = Path(__file__).with_name("mistakes")
ENV = {"OPENAI_API_KEY": "sk-from-the-environment", "HOME": "/root", "EMPTY": ""}
PLANS = {"plans/free.toml": "monthly_price = 0\n"}
CASES = sorted(path.stem for path in GALLERY.glob("*.toml"))


def rendered(case: str) -> str:
    text = (GALLERY / f"{case}.toml").read_text(encoding="utf-8")
    if case.startswith("plan-"):
        plan, file = read_plan(text, "plans/starter.toml")
        assert plan is None
        return Mistakes(file.mistakes).render() + "\n"
    with pytest.raises(Mistakes) as raised:
        parse_gateway(text, "gateway.toml", PLANS, ENV)
    return raised.value.render() + "\n"


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_answered_with_exactly_this_message(case: str) -> None:
    assert rendered(case) == (GALLERY / f"{case}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_no_message_shows_a_secret(case: str) -> None:
    message = rendered(case)
    for secret in ("abcdef123456", "from-the-environment", "secret-word"):
        assert secret not in message


def test_every_case_has_its_message_and_every_message_its_case() -> None:
    assert len(CASES) >= 50
    assert sorted(path.stem for path in GALLERY.glob("*.txt")) == CASES
