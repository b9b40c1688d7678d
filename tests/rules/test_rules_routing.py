"""Routes are chosen on the raw bytes of the path, by priority, then host, then how exactly the path is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.routing import Choice, Match, NoMethod, Pattern, PatternKind, Router


@dataclass(frozen=True)
class Entry:
    name: str
    pattern: Pattern
    methods: frozenset[str] | None = None
    host: str | None = None
    priority: int = 0
    when: object | None = None


def entry(
    name: str, path: str, methods: str = "", host: str | None = None, priority: int = 0, when: object | None = None
) -> Entry:
    return Entry(name, Pattern.parse(path), frozenset(methods.split()) or None, host, priority, when)


def asked(router: Router[Entry], path: bytes, method: str = "POST", host: str | None = None) -> list[str]:
    """The names of the routes that the request decides between."""
    choice = router.find(path, method, host)
    assert isinstance(choice, Choice)
    return [match.route.name for match in choice.candidates]


def found(router: Router[Entry], path: bytes, method: str = "POST", host: str | None = None) -> str | None:
    match = router.find(path, method, host)
    return match.route.name if isinstance(match, Match) else None


def test_a_path_is_matched_byte_by_byte_and_never_decoded_or_folded() -> None:
    router = Router([entry("chat", "/v1/chat/completions"), entry("odd", "/v1//x%2Fy")])
    assert found(router, b"/v1/chat/completions") == "chat"
    for other in (
        b"/v1/chat%2Fcompletions",
        b"/v1/chat%2fcompletions",
        b"//v1/chat/completions",
        b"/v1//chat/completions",
        b"/V1/chat/completions",
        b"/v1/Chat/completions",
        b"/v1/chat/completions/",
        b"/v1/./chat/completions",
        b"/v1/x/../chat/completions",
        b"/v1/chat/completions\n",
        b"/v1/chat/completions\x00",
        b"/v1/ch%61t/completions",
        b"",
    ):
        assert found(router, other) is None, other
    assert found(router, b"/v1//x%2Fy") == "odd"
    assert found(router, b"/v1//x%2fy") is None


def test_a_name_takes_one_segment_and_stops_at_the_literal_after_it() -> None:
    router = Router([entry("gemini", "/v1beta/models/{model}:generateContent")])
    match = router.find(b"/v1beta/models/gemini-2.5-pro:generateContent", "POST")
    assert isinstance(match, Match)
    assert match.names == {"model": "gemini-2.5-pro"}
    match = router.find(b"/v1beta/models/a:b%2Fc:generateContent", "POST")
    assert isinstance(match, Match)
    assert match.names == {"model": "a:b%2Fc"}
    for other in (
        b"/v1beta/models/:generateContent",
        b"/v1beta/models/a/b:generateContent",
        b"/v1beta/models/x:streamGenerateContent",
        b"/v1beta/models/x:generateContents",
        b"/v1beta/models/x",
    ):
        assert found(router, other) is None, other


def test_bytes_that_are_no_text_are_given_back_as_latin_1() -> None:
    match = Router([entry("m", "/m/{name}")]).find(b"/m/\xff\xe9", "GET")
    assert isinstance(match, Match)
    assert match.names["name"].encode("latin-1") == b"\xff\xe9"


def test_a_prefix_takes_everything_below_it_and_not_itself_without_the_slash() -> None:
    router = Router([entry("local", "/local/v1/*")])
    for path in (b"/local/v1/", b"/local/v1/chat", b"/local/v1/a/b//c", b"/local/v1/%2F\n"):
        assert found(router, path) == "local", path
    for path in (b"/local/v1", b"/local/v1x", b"/local/v", b"/x/local/v1/a"):
        assert found(router, path) is None, path


def test_exact_comes_before_template_before_prefix_and_more_literal_bytes_first() -> None:
    router = Router(
        [
            entry("all", "/*"),
            entry("v1", "/v1/*"),
            entry("template", "/v1/{kind}"),
            entry("longer", "/v1/{kind}:run"),
            entry("exact", "/v1/chat"),
        ]
    )
    assert found(router, b"/v1/chat") == "exact"
    assert found(router, b"/v1/other") == "template"
    assert found(router, b"/v1/x:run") == "longer"
    assert found(router, b"/v1/a/b") == "v1"
    assert found(router, b"/v2") == "all"


def test_priority_beats_exactness_and_a_host_beats_no_host() -> None:
    router = Router([entry("exact", "/v1/chat"), entry("first", "/v1/*", priority=1)])
    assert found(router, b"/v1/chat") == "first"
    router = Router([entry("any", "/v1/chat"), entry("eu", "/v1/*", host="eu.example.com")])
    assert found(router, b"/v1/chat", host="eu.example.com") == "eu"
    assert found(router, b"/v1/chat", host="us.example.com") == "any"
    assert found(router, b"/v1/chat") == "any"


def test_a_known_path_with_another_method_names_the_methods_that_do() -> None:
    router = Router([entry("write", "/v1/files", "POST PUT"), entry("read", "/v1/files", "GET")])
    assert found(router, b"/v1/files", "GET") == "read"
    assert router.find(b"/v1/files", "DELETE") == NoMethod(("GET", "POST", "PUT"))
    assert router.find(b"/v1/file", "DELETE") is None
    assert router.find(b"/v1/files", "get") == NoMethod(("GET", "POST", "PUT"))


def test_a_method_that_the_exact_route_does_not_take_falls_through_to_a_wider_route() -> None:
    router = Router([entry("exact", "/v1/chat", "POST"), entry("rest", "/v1/*")])
    assert found(router, b"/v1/chat", "POST") == "exact"
    assert found(router, b"/v1/chat", "GET") == "rest"


@pytest.mark.parametrize(
    ("text", "kind", "literal", "names"),
    [
        ("/", PatternKind.EXACT, 1, ()),
        ("/*", PatternKind.PREFIX, 1, ()),
        ("/v1/chat", PatternKind.EXACT, 8, ()),
        ("/v1/*", PatternKind.PREFIX, 4, ()),
        ("/m/{model}:go", PatternKind.TEMPLATE, 6, ("model",)),
        ("/{a}/{b}/*", PatternKind.PREFIX, 3, ("a", "b")),
        ("/a.b+c(d)$", PatternKind.EXACT, 10, ()),
    ],
)
def test_a_pattern_knows_its_kind_and_its_literal_bytes(
    text: str, kind: PatternKind, literal: int, names: tuple[str, ...]
) -> None:
    pattern = Pattern.parse(text)
    assert (pattern.kind, pattern.literal, pattern.names) == (kind, literal, names)


def test_letters_that_mean_something_to_a_regex_mean_themselves() -> None:
    assert Pattern.parse("/a.b+c(d)$").match(b"/a.b+c(d)$") == {}
    assert Pattern.parse("/a.b").match(b"/axb") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v1", "begins with '/'"),
        ("", "begins with '/'"),
        ("/v1?x=1", "neither '?' nor '#'"),
        ("/v1#x", "neither '?' nor '#'"),
        ("/v1*", "only stand at the end"),
        ("/*/x", "only stand at the end"),
        ("/v1/**", "only stand at the end"),
        ("/{}", "not a name in braces"),
        ("/{a-b}", "not a name in braces"),
        ("/{é}", "ASCII"),
        ("/{a", "not closed"),
        ("/a}", "not closed"),
        ("/{a}/{a}", "stands twice"),
        ("/{a}{b}", "between two names"),
        ("/{a}-{b}", "between two names"),
        ("/a b", "ASCII without blanks"),
        ("/é", "ASCII without blanks"),
        ("/a\n", "ASCII without blanks"),
    ],
)
def test_a_path_that_cannot_be_a_route_says_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("?", r"\?")):
        Pattern.parse(text)


def test_two_patterns_of_one_shape_match_the_same_paths() -> None:
    assert Pattern.parse("/m/{a}/x").shape == Pattern.parse("/m/{b}/x").shape
    assert Pattern.parse("/m/{a}/x").shape != Pattern.parse("/m/{a}/y").shape


PATHS = ["/a", "/a/b", "/a/*", "/*", "/{x}", "/a/{x}", "/{x}/b", "/a/{x}:go", "/{x}/*", "/a/b:go"]
HOSTS = st.sampled_from([None, None, "h", "i"])
METHODS = st.sampled_from([None, frozenset({"GET"}), frozenset({"POST"}), frozenset({"GET", "POST"})])


@st.composite
def tables(draw: st.DrawFn) -> list[Entry]:
    paths = draw(st.lists(st.sampled_from(PATHS), max_size=8))
    return [
        Entry(f"r{number}", Pattern.parse(path), draw(METHODS), draw(HOSTS), draw(st.integers(0, 1)))
        for number, path in enumerate(paths)
    ]


def takes(text: str, path: str) -> bool:
    """The words of ``Pattern``'s docstring, without a regex."""
    want, have = text.split("/")[1:], path.split("/")[1:]
    if want[-1] == "*":
        if len(have) < len(want):
            return False
        want, have = want[:-1], have[: len(want) - 1]
    return len(want) == len(have) and all(_segment(one, other) for one, other in zip(want, have, strict=True))


def _segment(want: str, have: str) -> bool:
    if "{" not in want:
        return want == have
    before, after = want[: want.index("{")], want[want.index("}") + 1 :]
    return have.startswith(before) and have.endswith(after) and len(have) > len(before) + len(after)


def naive(routes: Sequence[Entry], path: str, method: str, host: str | None) -> str | frozenset[str] | None:
    """Every route looked at, the best of those that fit taken."""
    fit = [route for route in routes if takes(route.pattern.text, path) and route.host in (None, host)]
    able = [route for route in fit if route.methods is None or method in route.methods]
    if not able:
        return frozenset().union(*(route.methods or frozenset() for route in fit)) or None

    return min(able, key=ranked).name


def ranked(route: Entry) -> tuple[int, int, int, int, str]:
    text = route.pattern.text
    kind = 2 if text.endswith("*") else 1 if "{" in text else 0
    literal = len(text.removesuffix("*").replace("{x}", ""))
    return (-route.priority, 1 if route.host is None else 0, kind, -literal, route.name)


@examples(200)
@given(
    tables(),
    st.sampled_from(["/", "/a", "/b", "/a/", "/a/b", "/a/b:go", "/a/:go", "/c/b", "/a/b/c", "/%61", "//a"]),
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from([None, "h", "z"]),
)
def test_the_router_finds_what_looking_at_every_route_finds(
    routes: list[Entry], path: str, method: str, host: str | None
) -> None:
    result = Router(routes).find(path.encode(), method, host)
    expected = naive(routes, path, method, host)
    if isinstance(result, Match):
        assert result.route.name == expected
    elif isinstance(result, NoMethod):
        assert frozenset(result.allowed) == expected
    else:
        assert expected is None


def test_routes_with_a_condition_are_asked_as_they_are_written_and_then_the_one_without() -> None:
    router = Router(
        [
            entry("rest", "/v1/chat"),
            entry("z", "/v1/chat", when="first"),
            entry("a", "/v1/chat", when="second"),
            entry("never", "/v1/*"),
            entry("other", "/v1/other"),
        ]
    )
    assert asked(router, b"/v1/chat") == ["z", "a", "rest"]
    # What no condition is asked for is found as ever.
    assert found(router, b"/v1/other") == "other"
    assert found(router, b"/v1/more") == "never"


def test_a_condition_stands_within_the_rank_of_its_route() -> None:
    router = Router(
        [
            entry("prefix", "/v1/*", when="x"),
            entry("exact", "/v1/chat", when="x"),
            entry("named", "/v1/{x}", when="x"),
            entry("early", "/v1/*", priority=1, when="x"),
            entry("hosted", "/v1/chat", host="eu", when="x"),
        ]
    )
    assert asked(router, b"/v1/chat") == ["early", "exact", "named", "prefix"]
    assert asked(router, b"/v1/chat", host="eu") == ["early", "hosted", "exact", "named", "prefix"]
    unconditional = Router([entry("all", "/v1/*", priority=1), entry("exact", "/v1/chat", when="x")])
    assert found(unconditional, b"/v1/chat") == "all"


def test_a_method_that_no_route_takes_is_told_before_any_condition_is_asked() -> None:
    router = Router([entry("one", "/v1/chat", "POST", when="x"), entry("two", "/v1/chat", "PUT")])
    assert router.find(b"/v1/chat", "GET") == NoMethod(("POST", "PUT"))
    assert found(router, b"/v1/chat", "PUT") == "two"
    assert asked(router, b"/v1/chat", "POST") == ["one"]


@examples(200)
@given(
    tables(),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.sampled_from(["/a", "/a/", "/a/b", "/a/b:go", "/c/b", "/a/b/c"]),
    st.sampled_from(["GET", "POST"]),
    st.sampled_from([None, "h"]),
)
def test_the_candidates_are_all_that_fit_up_to_the_first_without_a_condition(
    routes: list[Entry], conditions: list[bool], path: str, method: str, host: str | None
) -> None:
    routes = [replace(each, when="x" if has else None) for each, has in zip(routes, conditions, strict=False)]
    able = [
        each
        for each in routes
        if takes(each.pattern.text, path) and each.host in (None, host) and (not each.methods or method in each.methods)
    ]
    able.sort(key=lambda each: (*ranked(each)[:-1], each.when is None, "" if each.when else each.name))
    plain = [number for number, each in enumerate(able) if each.when is None]
    expected = [each.name for each in able[: plain[0] + 1 if plain else None]]
    result = Router(routes).find(path.encode(), method, host)
    if isinstance(result, Choice):
        assert [candidate.route.name for candidate in result.candidates] == expected
        assert result.candidates[0].route.when is not None
    else:
        assert ([result.route.name] if isinstance(result, Match) else []) == expected
