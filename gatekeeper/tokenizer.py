"""The tokenizer that may be installed beside gatekeeper (``pip install 'gatekeeper[tokenizer]'``): rs-bpe, which holds
the public tables of OpenAI's models and never downloads them.

The rule: only this module knows it. It counts; what the count is for is decided elsewhere (``rules.texts``).
"""

import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any

PACKAGE = "rs_bpe"
_ENCODINGS = ("o200k_base", "cl100k_base")
_TABLES: dict[str, Any] = {}
_BEGINNING = threading.Lock()


def installed() -> bool:
    """Whether it can be used."""
    return find_spec(PACKAGE) is not None


def warm() -> None:
    """Unpack the tables, which takes half a second: before the first call, not within it."""
    for encoding in _ENCODINGS:
        if encoding not in _TABLES:
            _TABLES[encoding] = getattr(import_module(f"{PACKAGE}.bpe").openai, encoding)()


def count(encoding: str, text: str) -> int | None:
    """The tokens of a text, which is short (``texts.TEXT_BYTES_MAX``). Half a letter counts as a letter. None while the
    tables are unpacked: a reload may have begun to ask for them."""
    table = _TABLES.get(encoding)
    if table is None:
        if _BEGINNING.acquire(blocking=False):
            threading.Thread(target=warm, name="tokenizer", daemon=True).start()
        return None
    return int(table.count(text.encode("utf-8", "replace").decode("utf-8")))
