"""Tokens: only ours, only as we sign them, only for as long as they last."""

import base64
import json
import stat
import threading

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.errors import Fault
from gatekeeper.people.tokens import LIFE_MS, Tokens, kept_secret
from gatekeeper.ports.people import Login, Role

SECRET = b"s" * 32
NOW_MS = 1_800_000_000_000
ADMIN = Login("op_1", "a@example.org", 1, Role.ADMIN, password="h1")
PERSON = Login("per_1", "p@example.org", 1, customer_id="acme")
TOKENS = Tokens(lambda: SECRET)
CLAIMS = {"iss": "gatekeeper", "aud": "gatekeeper", "sub": "op_1", "role": "owner", "pwd": "", "iat": 1, "jti": "x"}
LATER_S = NOW_MS // 1000 + 60


def test_a_token_says_who_it_is_for_an_hour():
    token, expires_ms = TOKENS.make(ADMIN, NOW_MS)
    assert expires_ms == NOW_MS + LIFE_MS
    claims = TOKENS.read(token, NOW_MS)
    assert (claims.login_id, claims.role, claims.expires_ms) == ("op_1", "admin", expires_ms)
    assert claims.password == TOKENS.fingerprint(ADMIN)
    assert TOKENS.read(token, expires_ms - 1) is not None
    assert TOKENS.read(token, expires_ms) is None
    assert TOKENS.read(TOKENS.make(PERSON, NOW_MS)[0], NOW_MS).role == "customer:acme"
    assert "h1" not in base64.urlsafe_b64decode(token.split(".")[1] + "==").decode()


def test_who_signs_otherwise_is_nobody():
    fine = {**CLAIMS, "exp": LATER_S}
    assert TOKENS.read(jwt.encode(fine, SECRET, "HS256"), NOW_MS) is not None
    wrong = [
        jwt.encode(fine, b"t" * 32, "HS256"),
        jwt.encode(fine, None, "none"),
        jwt.encode(fine, b"s" * 64, "HS512"),
        jwt.encode({**fine, "aud": "else"}, SECRET, "HS256"),
        jwt.encode({**fine, "iss": "else"}, SECRET, "HS256"),
        *(jwt.encode({n: v for n, v in fine.items() if n != name}, SECRET, "HS256") for name in fine),
        jwt.encode({**fine, "exp": 10**30}, SECRET, "HS256")[:-3],
        jwt.encode({**fine, "role": "x" * 3_000}, SECRET, "HS256"),
        jwt.encode({**fine, "pwd": 7}, SECRET, "HS256"),
        jwt.encode({**fine, "sub": ["op_1"]}, SECRET, "HS256"),
        jwt.encode({**fine, "exp": "soon"}, SECRET, "HS256"),
        "", ".", "..", "a.b.c", "é.é.é",
    ]  # fmt: skip
    assert [token for token in wrong if TOKENS.read(token, NOW_MS) is not None] == []


@given(st.integers(0, 400), st.integers(0, 63))
def test_a_letter_changed_anywhere_ends_it(place, letter):
    token, _ = TOKENS.make(ADMIN, NOW_MS)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place %= len(token)
    changed = token[:place] + alphabet[letter] + token[place + 1 :]
    read = TOKENS.read(changed, NOW_MS)
    # The last letter of a part has bits that nobody reads.
    assert read is None or read == TOKENS.read(token, NOW_MS)


def test_a_header_that_names_no_algorithm_is_not_believed():
    token, _ = TOKENS.make(ADMIN, NOW_MS)
    head, body, _ = token.split(".")
    for algorithm in ("none", "None", "NONE", "HS384", "RS256", ""):
        fake = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).rstrip(b"=").decode()
        for signature in ("", token.split(".")[2]):
            assert TOKENS.read(f"{fake}.{body}.{signature}", NOW_MS) is None
    assert TOKENS.read(f"{head}.{body}.", NOW_MS) is None


def test_the_secret_is_made_once_and_only_ours_to_read(tmp_path):
    file = tmp_path / "deep" / "gatekeeper.sqlite.secret"
    found = []
    threads = [threading.Thread(target=lambda: found.append(kept_secret(file))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(found[0]) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_secret_that_is_no_good_is_told_and_not_used(tmp_path):
    file = tmp_path / "secret"
    for text in ("", "abc123", "é" * 40):
        file.write_text(text, "utf-8")
        with pytest.raises(Fault) as told:
            kept_secret(file)
        assert not text or text not in str(told.value)
    with pytest.raises(Fault):
        kept_secret(tmp_path)
