"""A line that is shown in a message never holds a secret, however the secret was written."""

import tomllib

import pytest

from gatekeeper.config.locate import locate
from gatekeeper.config.masking import masked, masked_unparsed

SECRETS = [
    '[admin]\nkey = "hush-hush"',
    "[admin]\nkey = 'hush-hush'",
    '[admin]\nkey = """\nhush-hush"""',
    '"admin"."key" = "hush-hush"',
    'admin = "hush-hush"',
    '[upstreams.a]\nauth = { type = "bearer", key = "hush-hush" }',
    '[upstreams.a.auth]\nkey = "hush-hush"',
    '[upstreams.a]\nauth = "hush-hush"',
    '[upstreams.a]\nauth = ["hush-hush"]',
    '[upstreams.a]\nheaders = { X-Any = "hush-hush" }',
    '[upstreams.a]\napi_key = "hush-hush"',
    '[upstreams.a]\nurl = "https://me:hush-hush@host/"',
    '[upstreams.a]\nurl = "https://hush-hush@host/"',
    '[database]\nurl = "postgresql://me:hush-hush@host/d"',
    '[database]\nurl = "postgresql://me:p@hush-hush/x@host/d"',
    '[database]\nurl = "postgresql://host/d?password=hush-hush&x=1"',
    '[database]\npassword = "hush-hush"',
    '[admin]\nkey = "${NAME:-hush-hush}"',
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_literal_secret_is_blanked_and_every_offset_kept(text: str) -> None:
    assert tomllib.loads(text)
    shown = masked(text, locate(text))
    assert "hush" not in shown
    assert len(shown) == len(text)
    assert [at for at, letter in enumerate(shown) if letter == "\n"] == [
        at for at, letter in enumerate(text) if letter == "\n"
    ]


@pytest.mark.parametrize("text", [text for text in SECRETS if '"""' not in text])
def test_a_secret_is_blanked_too_where_the_text_is_no_toml(text: str) -> None:
    if "headers" in text:
        text = text.replace("X-Any", "X-Api-Key")
    assert "hush" not in masked_unparsed(text.removesuffix('"') + "\n[broken")


def test_what_is_no_secret_stays_readable() -> None:
    text = (
        '[upstreams.a]\nauth = { type = "header", name = "x-api-key", key = "${OPENAI_API_KEY}" }\nurl = "https://h/v1"'
    )
    assert masked(text, locate(text)) == text
