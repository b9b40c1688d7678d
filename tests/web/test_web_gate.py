"""What the gate makes of a request: where it comes from, by whom it is believed, and whether cookies are safe."""

from dataclasses import replace

import pytest
from fakes.stand import PLANS, gateway_text
from starlette.requests import Request

from gatekeeper.config import parse_gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.web.gate import Gate

TRUSTING = 'trusted_proxies = ["10.0.0.0/8"]'
PUBLIC = 'public_url = "https://llm.example.com"'


def gate(server: str = "") -> Gate:
    gateway = parse_gateway(gateway_text("sqlite:///x.sqlite", 1, server=server), "gateway.toml", PLANS, {})
    # What it asks of people and of the store is none of these questions.
    return Gate(None, None, None, lambda: replace(gateway))  # type: ignore[arg-type]


def asked(peer: str = "192.0.2.1", scheme: str = "http", **headers: str) -> Request:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {"type": "http", "method": "POST", "scheme": scheme, "path": "/", "query_string": b"", "root_path": "",
         "headers": [(b"host", b"gateway.test"), *sent], "client": (peer, 5), "server": ("gateway.test", 80)}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("server", "peer", "chain", "address"),
    [
        ("", "192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (TRUSTING, "192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (TRUSTING, "10.0.0.1", "198.51.100.7", "198.51.100.7"),
        (TRUSTING, "10.0.0.1", "1.2.3.4, 198.51.100.7", "198.51.100.7"),
        (TRUSTING, "10.0.0.1", "1.2.3.4, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        (TRUSTING, "10.0.0.1", None, "10.0.0.1"),
        (TRUSTING, "::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        (TRUSTING, "10.0.0.1", "1.2.3.4, 198.51.100.7:5678", "198.51.100.7"),
        (TRUSTING, "10.0.0.1", "198.51.100.7, 10.9.9.9:80", "198.51.100.7"),
        (TRUSTING, "10.0.0.1", "[2001:db8::7]:5678", "2001:db8::7"),
        (TRUSTING, "10.0.0.1", "2001:db8::7", "2001:db8::7"),
    ],
)
def test_who_asks_is_the_last_address_that_no_proxy_of_ours_has(server, peer, chain, address):
    headers = {} if chain is None else {"x_forwarded_for": chain}
    assert gate(server).address_of(asked(peer, **headers)) == address


@pytest.mark.parametrize(
    ("server", "headers"),
    [
        ("", {}),
        ("", {"origin": "http://gateway.test"}),
        ("", {"origin": "http://gateway.test", "sec_fetch_site": "same-origin"}),
        ("", {"origin": "null", "sec_fetch_site": "same-origin"}),
        (PUBLIC, {"origin": "https://llm.example.com"}),
        (PUBLIC, {"origin": "https://LLM.example.com"}),
    ],
)
def test_what_comes_from_here_passes(server, headers):
    gate(server).check_origin(asked(**headers))


@pytest.mark.parametrize(
    ("server", "headers"),
    [
        ("", {"origin": "https://gateway.test"}),
        ("", {"origin": "http://gateway.test:8080"}),
        ("", {"origin": "http://gateway.test.evil.example"}),
        ("", {"origin": "null"}),
        ("", {"origin": "null", "sec_fetch_site": "cross-site"}),
        ("", {"origin": "http://gateway.test", "sec_fetch_site": "cross-site"}),
        ("", {"sec_fetch_site": "same-site"}),
        ("", {"origin": "http://other.test", "x_forwarded_host": "other.test"}),
        (PUBLIC, {"origin": "http://llm.example.com"}),
    ],
)
def test_what_comes_from_elsewhere_does_not(server, headers):
    with pytest.raises(Refusal) as refused:
        gate(server).check_origin(asked(**headers))
    assert refused.value.code is Code.CROSS_SITE


def test_cookies_go_over_https_only_where_that_is_how_people_come():
    assert gate(PUBLIC).is_secure(asked())
    assert not gate().is_secure(asked())
    assert gate().is_secure(asked(scheme="https"))
    assert gate(TRUSTING).is_secure(asked("10.0.0.1", x_forwarded_proto="https"))
    assert not gate(TRUSTING).is_secure(asked(x_forwarded_proto="https"))
