"""gateway.toml, plans/ and .env on disk -> one Gateway; and everything wrong in all of them said at once."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.config.gateway import (
    AuthKind,
    Dialect,
    Durability,
    Gateway,
    InjectUsage,
    OnDisconnect,
    Route,
    Secret,
    SetHeader,
    Unmeasured,
    Variable,
)
from gatekeeper.config.locate import locate
from gatekeeper.config.read import load_gateway, parse_gateway
from gatekeeper.config.routes import DEFAULTABLE, inferred_dialect
from gatekeeper.diagnostics import Mistakes
from gatekeeper.rules.routing import Choice, Match

FREE = {"plans/free.toml": "monthly_price = 0\n"}
UPSTREAM = '[upstreams.openai]\nurl = "https://api.openai.com"\n'
ROUTE = '[[routes]]\nname = "chat"\npath = "/v1/chat/completions"\nupstream = "openai"\n'


def parse(text: str, env: dict[str, str] | None = None, plans: dict[str, str] | None = None) -> Gateway:
    return parse_gateway(text, "gateway.toml", FREE if plans is None else plans, env or {})


def route(gateway: Gateway, name: str = "chat") -> Route:
    return next(route for route in gateway.router.routes if route.name == name)


def refused(text: str, env: dict[str, str] | None = None, plans: dict[str, str] | None = None) -> str:
    with pytest.raises(Mistakes) as raised:
        parse(text, env, plans)
    return raised.value.render()


def written(directory: Path, text: str, plans: dict[str, str] | None = None) -> Path:
    (directory / "plans").mkdir()
    for name, plan in ({"free.toml": "monthly_price = 0\n"} if plans is None else plans).items():
        (directory / "plans" / name).write_text(plan, encoding="utf-8")
    path = directory / "gateway.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_least_gateway_has_one_upstream_and_one_route_and_safe_defaults() -> None:
    gateway = parse(UPSTREAM + ROUTE)
    assert (gateway.server.host, gateway.server.port) == ("127.0.0.1", 8080)
    assert gateway.database_url == Secret("sqlite:///gatekeeper.sqlite")
    assert gateway.admin_key is None
    assert gateway.keys.anonymous_customer is None
    assert gateway.ledger.durability is Durability.STRICT
    assert gateway.warnings == ()
    chat = route(gateway)
    assert chat.dialect is Dialect.OPENAI
    assert chat.methods is None
    assert chat.meter_methods == {"POST"}
    assert chat.unmeasured is Unmeasured.ESTIMATE
    assert chat.set_headers == (SetHeader("X-User-ID", Variable.USER_ID), SetHeader("X-Plan-ID", Variable.PLAN_ID))
    match = gateway.router.find(b"/v1/chat/completions", "POST")
    assert isinstance(match, Match)
    assert match.route is chat


def test_what_the_tables_say_stands_in_the_gateway() -> None:
    gateway = parse(
        """
        [server]
        host = "0.0.0.0"
        port = 0
        public_url = "https://llm.example.com/"
        trusted_proxies = ["10.0.0.7", "192.168.0.0/16"]
        drain_s = 0.5

        [database]
        url = "postgres://me:pw@db/gatekeeper"

        [admin]
        key = "an-admin-key"

        [ledger]
        durability = "relaxed"
        hold_ttl_s = 60

        [upstreams.azure]
        url = "https://Example.com:8443/openai/"
        auth = { type = "header", name = "api-key", key = "k" }
        headers = { X-Org = "one", X-None = "${NONE:-}" }
        timeouts_s = { connect = 1, first_byte = 2.5, idle = 3, total = 4 }
        connections_max = 7
        tls = { verify = false, ca_file = "ca.pem" }

        [[routes]]
        name = "m"
        path = "/m/{model}:go"
        rewrite = "/deployments/{model}"
        upstream = "azure"
        methods = ["POST"]
        host = "eu.example.com"
        priority = 3
        charge_errors = true
        input_tokens_max = 0
        meters = { total = "usage().total" }
        """
    )
    assert gateway.server.public_url == "https://llm.example.com"
    assert gateway.server.trusted_proxies == ("10.0.0.7", "192.168.0.0/16")
    assert gateway.server.drain_s == 0.5
    assert gateway.database_url.reveal() == "postgresql://me:pw@db/gatekeeper"
    assert gateway.admin_key == Secret("an-admin-key")
    assert (gateway.ledger.durability, gateway.ledger.hold_ttl_s) == (Durability.RELAXED, 60.0)
    azure = gateway.upstreams["azure"]
    assert (azure.scheme, azure.host, azure.port, azure.base_path) == ("https", "example.com", 8443, "/openai")
    assert (azure.auth.kind, azure.auth.name, azure.auth.secret) == (AuthKind.HEADER, "api-key", Secret("k"))
    assert azure.headers == (("X-Org", "one"),)
    timeouts = (azure.connect_timeout_s, azure.first_byte_timeout_s, azure.idle_timeout_s, azure.total_timeout_s)
    assert timeouts == (1.0, 2.5, 3.0, 4.0)
    assert (azure.connections_max, azure.tls_verify, azure.ca_file) == (7, False, Path("ca.pem"))
    m = route(gateway, "m")
    assert (m.rewrite, m.methods, m.host, m.priority) == ("/deployments/{model}", {"POST"}, "eu.example.com", 3)
    assert (m.charge_errors, m.input_tokens_max, set(m.meters)) == (True, 0, {"total"})


def test_a_trusted_proxy_is_an_address_or_in_a_network() -> None:
    server = parse(f'[server]\ntrusted_proxies = ["10.0.0.7", "192.168.1.9/16", "::1"]\n{UPSTREAM}{ROUTE}').server
    assert server.trusted_proxies == ("10.0.0.7", "192.168.0.0/16", "::1")
    assert [server.trusts(host) for host in ("10.0.0.7", "192.168.200.1", "::1")] == [True, True, True]
    assert [server.trusts(host) for host in ("10.0.0.8", "192.169.0.1", "::2", "unix", "", None)] == [False] * 6


def test_no_secret_shows_in_what_a_log_could_print() -> None:
    text = UPSTREAM + 'auth = { type = "bearer", key = "${KEY}" }\nheaders = { X-Token = "${KEY}" }\n\n' + ROUTE
    gateway = parse(
        text, {"KEY": "very-secret", "ADMIN_API_KEY": "very-secret", "DATABASE_URL": "sqlite:////very-secret"}
    )
    assert gateway.upstreams["openai"].auth.secret == Secret("very-secret")
    assert "very-secret" not in repr(gateway)


def test_the_environment_beats_the_file() -> None:
    text = '[server]\nport = 1\n[database]\nurl = "sqlite:///a"\n[admin]\nkey = "b"\n' + UPSTREAM + ROUTE
    env = {"PORT": "9000", "DATABASE_URL": "postgres://h/d", "ADMIN_API_KEY": "c", "JWT_SECRET": "j" * 32}
    gateway = parse(text, env)
    assert gateway.server.port == 9000
    assert gateway.database_url.reveal() == "postgresql://h/d"
    assert gateway.admin_key == Secret("c")


def test_an_overriding_variable_that_is_wrong_is_named_without_its_value() -> None:
    message = refused(UPSTREAM + ROUTE, {"PORT": "http", "DATABASE_URL": "oracle://me:pw-secret@x"})
    assert "<environment>:1:6: error: the environment variable PORT is no port" in message
    assert "DATABASE_URL: this is no URL of a database" in message
    assert "pw-secret" not in message


def test_variables_defaults_and_dollar_signs_in_strings() -> None:
    def key(written: str, env: dict[str, str]) -> str | None:
        text = f'{UPSTREAM}auth = {{ type = "bearer", key = "{written}" }}\n{ROUTE}'
        secret = parse(text, env).upstreams["openai"].auth.secret
        return secret.reveal() if secret is not None else None

    assert key("${K}", {"K": "v"}) == "v"
    assert key("a-${K}-b", {"K": "$$${X}"}) == "a-$$${X}-b"
    assert key("${K:-d}", {}) == "d"
    assert key("${K:-d}", {"K": ""}) == "d"
    assert key("${K:-d}", {"K": "v"}) == "v"
    assert key("$$K-$${K}-$K", {"K": "v"}) == "$K-${K}-$K"
    assert key("${K:-}", {}) is None


def test_an_upstream_with_an_empty_key_sends_none_and_says_so() -> None:
    gateway = parse(UPSTREAM + 'auth = { type = "bearer", key = "${K:-}" }\n' + ROUTE)
    assert gateway.upstreams["openai"].auth.kind is AuthKind.NONE
    assert [warning.line for warning in gateway.warnings] == [3]
    assert "goes" not in gateway.warnings[0].message and "is empty" in gateway.warnings[0].message


def test_a_route_changes_what_the_defaults_say_and_headers_are_merged() -> None:
    text = """
        [defaults]
        upstream = "openai"
        output_tokens_max = 5
        meters = { a = "usage().total" }
        set_headers = { X-Team = "one", x-user-id = "{customerID}" }
        remove_headers = ["X-One"]

        [[routes]]
        name = "one"
        path = "/one"

        [[routes]]
        name = "two"
        path = "/two"
        output_tokens_max = 6
        meters = { b = "usage().total" }
        set_headers = { X-Plan-ID = false, X-Team = "two" }
        remove_headers = ["X-Two"]
        """
    gateway = parse(UPSTREAM + text)
    one, two = route(gateway, "one"), route(gateway, "two")
    assert (one.output_tokens_max, two.output_tokens_max) == (5, 6)
    assert (set(one.meters), set(two.meters)) == ({"a"}, {"a", "b"})
    assert {header.name: header.value for header in one.set_headers} == {
        "x-user-id": Variable.CUSTOMER_ID,
        "X-Plan-ID": Variable.PLAN_ID,
        "X-Team": "one",
    }
    assert {header.name: header.value for header in two.set_headers} == {
        "x-user-id": Variable.CUSTOMER_ID,
        "X-Team": "two",
    }
    assert (one.remove_headers, two.remove_headers) == ({"x-one"}, {"x-one", "x-two"})


def test_routes_of_one_path_may_differ_in_their_conditions_alone() -> None:
    second = ROUTE.replace('"chat"', '"streams"') + 'when = "request.stream == true"\n'
    third = ROUTE.replace('"chat"', '"small"') + "when = 'requestBytes < 1000'\n"
    gateway = parse(UPSTREAM + ROUTE + second + third)
    choice = gateway.router.find(b"/v1/chat/completions", "POST")
    assert isinstance(choice, Choice)
    assert [match.route.name for match in choice.candidates] == ["streams", "small", "chat"]
    assert "takes the same calls" in refused(UPSTREAM + ROUTE + second + second.replace('"streams"', '"again"'))
    assert "unknown key 'when' in [defaults]" in refused(UPSTREAM + '[defaults]\nwhen = "true"\n' + ROUTE)


def test_every_field_that_defaults_may_hold_reaches_a_route() -> None:
    values = {
        "buffer_bytes_max": "1_000",
        "charge_errors": "true",
        "cost": '"usage().cost"',
        "dialect": '"gemini"',
        "downgrade": '["a", "b"]',
        "drain_s": "0.5",
        "drain_tokens_max": "0",
        "estimate": '"requestBytes"',
        "failover_status": "[503]",
        "fallback": '[{ upstream = "other" }]',
        "free": "true",
        "hold": '"worst_case"',
        "hold_slice_tokens": "16",
        "host": '"a.example.com"',
        "inject_usage": '"never"',
        "input_tokens_max": "9",
        "live": '"count(events)"',
        "meter": '"usage().output"',
        "meter_methods": '["PUT"]',
        "meters": '{ x = "usage().total" }',
        "methods": '["PUT"]',
        "on_disconnect": '"drain"',
        "once_per_response": "false",
        "output_tokens_max": "8",
        "priority": "7",
        "rate_output_estimate": "6",
        "remove_headers": '["X-A"]',
        "request_bytes_max": "5",
        "retry": '"always"',
        "set_headers": '{ X-B = "b" }',
        "show_upstream": "true",
        "unmeasured": '"default"',
        "unmeasured_default": '"0.5"',
        "upstream": '"other"',
    }
    assert set(values) == set(DEFAULTABLE)
    plain = route(parse(UPSTREAM + ROUTE))
    other = '[upstreams.other]\nurl = "http://127.0.0.1:1"\n'
    for name, value in values.items():
        entry = ROUTE.replace('upstream = "openai"\n', "") if name == "upstream" else ROUTE
        changed = route(parse(f"{UPSTREAM}{other}[defaults]\n{name} = {value}\n{entry}"))
        assert getattr(changed, name) != getattr(plain, name), name
    assert changed.upstream == "other"
    chat = route(parse(f'{UPSTREAM}{ROUTE}unmeasured_default = "0.5"\non_disconnect = "drain"\ninject_usage = "never"'))
    assert chat.unmeasured_default == Decimal("0.5")
    assert (chat.on_disconnect, chat.inject_usage) == (OnDisconnect.DRAIN, InjectUsage.NEVER)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", Dialect.OPENAI),
        ("/v1/messages", Dialect.ANTHROPIC),
        ("/v1/messages/count_tokens", Dialect.ANTHROPIC),
        ("/v1/messages/*", Dialect.ANTHROPIC),
        ("/anthropic/v1/messages", Dialect.ANTHROPIC),
        ("/v1/messagesx", Dialect.OPENAI),
        ("/v1beta/models/{model}:generateContent", Dialect.GEMINI),
        ("/v1beta/*", Dialect.GEMINI),
        ("/g/{model}:streamGenerateContent", Dialect.GEMINI),
        ("/local/v1/*", Dialect.OPENAI),
    ],
)
def test_the_dialect_is_known_from_the_path(path: str, dialect: Dialect) -> None:
    assert inferred_dialect(path) is dialect


def test_routes_that_differ_in_method_host_or_priority_may_share_a_path() -> None:
    def second(more: str) -> str:
        return f'{UPSTREAM}{ROUTE}methods = ["POST"]\n\n{ROUTE.replace("chat", "other", 1)}{more}\n'

    assert "takes the same calls" in refused(second(""))
    assert "takes the same calls" in refused(second('methods = ["GET", "POST"]'))
    for more in ('methods = ["GET"]', 'host = "a.example.com"', "priority = 1"):
        assert len(parse(second(more)).router.routes) == 2


def test_a_prefix_route_may_cover_our_own_paths() -> None:
    assert route(parse(UPSTREAM + ROUTE.replace("/v1/chat/completions", "/*"))).pattern.text == "/*"
    assert route(parse(UPSTREAM + ROUTE.replace("/v1/chat/completions", "/v1/*"))).pattern.text == "/v1/*"
    assert route(parse(UPSTREAM + ROUTE.replace("/v1/chat/completions", "/v1/models/{m}"))).pattern.names == ("m",)


def test_without_keys_the_gateway_stays_on_loopback_unless_the_author_insists() -> None:
    none = '[keys]\nmode = "none"\ncustomer = "local"\n'
    for host in ("127.0.0.1", "::1", "localhost", "127.8.0.1"):
        assert parse(f'[server]\nhost = "{host}"\n{none}{UPSTREAM}{ROUTE}').keys.anonymous_customer == "local"
    for host in ("0.0.0.0", "::", "192.168.0.4", "example.com"):
        assert "anybody who reaches" in refused(f'[server]\nhost = "{host}"\n{none}{UPSTREAM}{ROUTE}')
    gateway = parse(f'[server]\nhost = "0.0.0.0"\n{none}allow_network = true\n{UPSTREAM}{ROUTE}')
    assert gateway.keys.anonymous_customer == "local"


def test_the_default_plan_must_exist_and_a_broken_one_counts_as_there() -> None:
    assert "there is no plan 'free' for new customers" in refused(UPSTREAM + ROUTE, plans={})
    assert "there is no plan 'free' for new customers" in refused(
        UPSTREAM + ROUTE, plans={"pro.toml": "monthly_price = 1"}
    )
    message = refused(UPSTREAM + ROUTE, plans={"free.toml": "monthly_price = 1.5"})
    assert "there is no plan" not in message
    assert message.startswith("free.toml:1:17: error")


def test_an_example_of_a_route_is_kept_with_its_place_for_the_check_to_run() -> None:
    text = """
[[routes.example]]
name = "stream"
events = ['{"a": 1}', "two\\nlines", "[DONE]"]
units = "87.5"
source = "measured"

[[routes.example]]
file = "examples/answer.json.gz"
unmeasured = true
status = 500
request = '{"model": "m"}'
"""
    first, second = route(parse(UPSTREAM + ROUTE + text)).examples
    assert first.body == b'data: {"a": 1}\n\ndata: two\ndata: lines\n\ndata: [DONE]\n\n'
    assert (first.content_type, first.units, first.mark) == ("text/event-stream", Decimal("87.5"), "measured")
    assert first.failed("no").render().startswith('gateway.toml:11:9: error: no\n  units = "87.5"\n          ^^^^^^')
    assert (second.file, second.units, second.status) == (Path("examples/answer.json.gz"), None, 500)
    assert (second.content_type, second.content_encoding) == ("application/json", "gzip")
    assert second.request == b'{"model": "m"}'


def test_the_generation_changes_with_each_file_and_each_variable_that_is_read() -> None:
    text = UPSTREAM + 'auth = { type = "bearer", key = "${K:-}" }\n' + ROUTE
    first = parse(text, {"K": "1"}).generation
    assert first == parse(text, {"K": "1", "UNREAD": "x"}).generation
    others = {
        parse(text, {"K": "2"}).generation,
        parse(text + "\n", {"K": "1"}).generation,
        parse(text, {"K": "1", "PORT": "1"}).generation,
        parse(text, {"K": "1"}, {"plans/free.toml": "monthly_price = 1\n"}).generation,
    }
    assert len(others | {first}) == 5


EXAMPLE = Path(__file__).resolve().parents[2] / "gateway.toml.example"
ODD = [
    "true",
    "0",
    "-1",
    "1.5",
    "nan",
    '""',
    '"x"',
    '"/"',
    '"${X}"',
    '"{x}"',
    "[]",
    "{}",
    "[{}]",
    "1979-05-27",
    '"٣"',
    "'\x00'",
]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_value_anywhere_breaks_the_reader(data: st.DataObject) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    for _ in range(data.draw(st.integers(1, 3))):
        places = locate(text)
        path = data.draw(st.sampled_from([path for path in places if places.key(path) != places.value(path)]))
        span = places.value(path)
        text = text[: span.start] + data.draw(st.sampled_from(ODD)) + text[span.end :]
    try:
        parse(text, {"OPENAI_API_KEY": "k"})
    except Mistakes as mistakes:
        assert mistakes.render()


@pytest.mark.parametrize("text", ["a = " + "9" * 5_000, "a = 1e99999999999999999999", "a = " + "[" * 5_000])
def test_a_text_beyond_the_bounds_of_python_is_a_mistake_too(text: str) -> None:
    assert refused(text).startswith("gateway.toml:1:1: error: this is not TOML")


def test_an_expression_that_needs_the_whole_body_wants_a_buffer() -> None:
    meter = "meter = 'len(upper(allData))'\n"
    assert "allData" in refused(UPSTREAM + ROUTE + meter)
    chat = route(parse(UPSTREAM + ROUTE + meter + "buffer_bytes_max = 1_000\n"))
    assert chat.buffer_bytes_max == 1_000


def test_line_ends_of_windows_and_a_byte_order_mark_change_nothing() -> None:
    text = "\ufeff" + (UPSTREAM + ROUTE + "fre = true\n").replace("\n", "\r\n")
    assert refused(text).startswith("gateway.toml:7:1: error: unknown key 'fre'")


def test_all_files_are_complained_about_at_once_in_order(tmp_path: Path) -> None:
    plans = {"free.toml": "monthly_price = 0\nquoat = 1\n", "pro.toml": "monthly_price = = 1\n"}
    path = written(tmp_path, "[server]\nprot = 1\n" + UPSTREAM + ROUTE + 'meter = "usge().total"\n', plans)
    (tmp_path / ".env").write_text("GOOD=1\nno pair\n", encoding="utf-8")
    with pytest.raises(Mistakes) as raised:
        load_gateway(path, {})
    places = [(Path(mistake.source.name).name, mistake.line) for mistake in raised.value.mistakes]
    assert places == [(".env", 2), ("gateway.toml", 2), ("gateway.toml", 9), ("free.toml", 2), ("pro.toml", 1)]
    assert str(tmp_path / "plans" / "pro.toml") in raised.value.render()


def test_a_broken_gateway_file_does_not_hide_what_is_wrong_elsewhere(tmp_path: Path) -> None:
    path = written(tmp_path, "[server\n")
    (tmp_path / ".env").write_text("no pair\n", encoding="utf-8")
    with pytest.raises(Mistakes) as raised:
        load_gateway(path, {})
    assert len(raised.value.mistakes) == 2


@pytest.mark.parametrize("kind", ["missing", "directory", "not text", "too large"])
def test_a_file_that_cannot_be_read_is_a_mistake_like_any_other(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "gateway.toml"
    if kind == "directory":
        path.mkdir()
    elif kind == "not text":
        path.write_bytes(b"a = \xff")
    elif kind == "too large":
        path.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(Mistakes) as raised:
        load_gateway(path, {})
    says = {
        "missing": "no such file",
        "directory": "cannot be read",
        "not text": "byte 5",
        "too large": "4194305 bytes",
    }
    assert says[kind] in raised.value.render()
    assert raised.value.render().startswith(f"{path}:1:1: error")


def test_a_missing_directory_of_plans_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, 'plans = "tarifs"\n' + UPSTREAM + ROUTE)
    with pytest.raises(Mistakes, match="there is no directory"):
        load_gateway(path, {})


def test_the_dotenv_file_beside_the_gateway_is_read_and_the_real_environment_wins(tmp_path: Path) -> None:
    text = UPSTREAM + 'auth = { type = "bearer", key = "${KEY}" }\n' + ROUTE
    path = written(tmp_path, text)
    (tmp_path / ".env").write_text("KEY=from-file\nPORT=7000\n", encoding="utf-8")
    gateway = load_gateway(path, {})
    assert gateway.upstreams["openai"].auth.secret == Secret("from-file")
    assert gateway.server.port == 7000
    gateway = load_gateway(path, {"KEY": "real", "PORT": ""})
    assert gateway.upstreams["openai"].auth.secret == Secret("real")
    assert gateway.server.port == 8080


def test_a_relative_database_and_other_files_stand_beside_the_gateway_file(tmp_path: Path) -> None:
    tls = 'tls = { ca_file = "ca.pem" }\n'
    example = '[[routes.example]]\nfile = "a.sse"\nunits = 1\n'
    gateway = load_gateway(written(tmp_path, UPSTREAM + tls + ROUTE + example), {})
    assert gateway.database_url.reveal() == f"sqlite:///{tmp_path}/gatekeeper.sqlite"
    assert gateway.upstreams["openai"].ca_file == tmp_path / "ca.pem"
    assert route(gateway).examples[0].file == tmp_path / "a.sse"
    gateway = load_gateway(tmp_path / "gateway.toml", {"DATABASE_URL": "sqlite:///here.sqlite"})
    assert gateway.database_url.reveal() == "sqlite:///here.sqlite"
    gateway = load_gateway(tmp_path / "gateway.toml", {"DATABASE_URL": "sqlite:////var/lib/g.sqlite"})
    assert gateway.database_url.reveal() == "sqlite:////var/lib/g.sqlite"


def test_a_text_that_is_sent_reads_no_other_directory_than_the_file_does(tmp_path: Path) -> None:
    path = written(tmp_path, UPSTREAM + ROUTE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "login.toml").write_text('note = "of somebody else"\n', encoding="utf-8")
    for named in (str(elsewhere), "elsewhere", "plans/../elsewhere", "."):
        with pytest.raises(Mistakes) as raised:
            load_gateway(path, {}, text=f'plans = "{named}"\n' + UPSTREAM + ROUTE)
        said = raised.value.render()
        assert "can name no other directory" in said and "somebody else" not in said and "login.toml" not in said
    assert set(load_gateway(path, {}, text='plans = "plans"\n' + UPSTREAM + ROUTE).plans) == {"free"}
    sent = {"free.toml": "monthly_price = 9\n"}
    assert load_gateway(path, {}, text=UPSTREAM + ROUTE, plans=sent).plans["free"].monthly_price == 9
