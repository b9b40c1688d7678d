"""Requests that try to be more than they look: no label, spelling or reference makes a call cheaper than it is."""

import asyncio
import base64
import json

import httpx
import pytest
from fakes.origin import Asked, Line, replays
from fakes.stand import ROUTES, Stand, running

from gatekeeper.meters import Mark, Outcome

ANSWER = json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode()
CHAT = "/v1/chat/completions"


def ask(stand: Stand, body: object, path: str = CHAT, key: str | None = None, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"api-key": key or stand.key, "Content-Type": "application/json", **headers}
    return httpx.post(stand.url + path, content=content, headers=sent)


GREEDY = {"model": "g", "messages": [], "max_tokens": 1_000_000}


@pytest.mark.parametrize(
    "label",
    [
        {"Content-Encoding": "identity"},
        {"Content-Encoding": ""},
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
    ],
)
def test_the_bound_holds_however_the_body_is_labelled(tmp_path, label):
    with running(tmp_path, replays(ANSWER, "application/json"), plan="free") as stand:
        for body in (json.dumps(GREEDY).encode(), b" \r\n\xef\xbb\xbf" + json.dumps(GREEDY).encode()):
            answer = ask(stand, body, **label)
            assert answer.status_code in (200, 400)
        assert stand.origin.asked
        for asked in stand.origin.asked:
            assert json.loads(asked.body.strip(b" \r\n\xef\xbb\xbf"))["max_tokens"] <= 10_000


def test_an_encoded_body_is_refused_where_it_must_be_read(tmp_path):
    with running(tmp_path, replays(ANSWER, "application/json"), plan="free") as stand:
        refused = ask(stand, GREEDY, **{"Content-Encoding": "gzip"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")
        assert stand.origin.asked == []


def test_an_upload_holds_its_bytes_where_the_route_says_nothing_better(tmp_path):
    with running(tmp_path, replays(ANSWER, "application/json"), plan="free") as stand:
        upload = {"files": {"file": ("a.wav", b"\0" * 20_000)}, "headers": {"api-key": stand.key}}
        assert httpx.post(stand.url + CHAT, **upload).json()["error"]["code"] == "exceeds_limit"


@pytest.mark.parametrize("background", [True, "true", 1])
def test_an_answer_in_the_background_is_not_offered(tmp_path, background):
    with running(tmp_path, replays(ANSWER, "application/json")) as stand:
        answer = ask(stand, {"model": "g", "input": "x", "background": background}, "/v1/responses")
        assert answer.status_code == 400
        assert stand.origin.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"cheap","Model":"dear","messages":[]}',
        b'{"model":"cheap","messages":[],"model":"cheap"}',
        b'{"model":"cheap","MAX_TOKENS":100000,"messages":[]}',
        b'{"max_tokens":1000000,"model":"cheap","messages":[],"max_tokens":1}',
        b'{"\\u006dodel":"cheap","model":"cheap","messages":[]}',
    ],
)
def test_a_scope_of_models_reads_every_spelling(tmp_path, body):
    with running(tmp_path, replays(ANSWER, "application/json")) as stand:
        key = stand.make_key(models=["cheap"])
        assert ask(stand, body, key=key).status_code == 400
        assert ask(stand, {"model": "cheap", "messages": []}, key=key).status_code == 200


def test_the_model_in_a_path_is_read_as_the_upstream_reads_it(tmp_path):
    answer = json.dumps({"usageMetadata": {"totalTokenCount": 2, "promptTokenCount": 1}}).encode()
    with running(tmp_path, replays(answer, "application/json")) as stand:
        key = stand.make_key(models=["gemini-flash*"])

        def call(model: str) -> int:
            return ask(stand, {"contents": []}, f"/v1beta/models/{model}:generateContent", key=key).status_code

        assert call("gemini-flash%2F..%2Fgemini-pro") == 400
        assert call("gemini-pr%6F") == 403
        assert call("gemini-fl%61sh") == 200
        assert stand.record().model == "gemini-flash"


LETTERS = base64.b64encode(bytes(range(256)) * 12).decode()
TEXT = "word " * 4_000


@pytest.mark.parametrize(
    "part",
    [
        {"functionResponse": {"response": {"data": TEXT}}},
        {"inlineData": {"mimeType": "text/plain", "data": base64.b64encode(TEXT.encode()).decode()}},
        {"inlineData": {"mimeType": "image/png", "data": TEXT}},
        {"image_url": {"url": "data:text/plain;base64," + base64.b64encode(TEXT.encode()).decode()}},
        {"file": {"file_data": "data:application/json;base64," + LETTERS * 5}},
    ],
)
def test_text_that_is_dressed_as_a_picture_counts_as_text(tmp_path, part):
    with running(tmp_path, replays(ANSWER, "application/json"), plan="free") as stand:
        refused = ask(stand, {"model": "g", "messages": [part], "max_tokens": 5})
        assert refused.json()["error"]["code"] in ("exceeds_limit", "exceeds_rate")


@pytest.mark.parametrize(
    "part",
    [
        {"image_url": {"url": "data:image/png;base64," + LETTERS * 5}},
        {"image_url": {"url": "HTTPS://example.com/a.png"}},
        {"source": {"type": "base64", "media_type": "image/jpeg", "data": LETTERS * 5}},
        {"inlineData": {"mimeType": "image/png", "data": LETTERS * 5}},
        {"input_audio": {"format": "wav", "data": LETTERS * 5}},
    ],
)
def test_a_picture_is_counted_by_piece(tmp_path, part):
    with running(tmp_path, replays(ANSWER, "application/json"), plan="free") as stand:
        assert ask(stand, {"model": "g", "messages": [part], "max_tokens": 5}).status_code == 200


@pytest.mark.parametrize(
    "more",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "input_file", "file_url": "https://example.com/a.pdf"}]},
        {"input": [{"type": "input_file", "file_id": "file_1"}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"google_search": {}}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    ],
)
def test_input_from_elsewhere_needs_a_bound_where_a_limit_blocks(tmp_path, more):
    body = {"model": "g", "input": "x", "max_output_tokens": 5, **more}
    with running(tmp_path, replays(ANSWER, "application/json"), plan="free") as stand:
        assert ask(stand, body, "/v1/responses").json()["error"]["code"] == "unbounded_input"
        # A tool that the client runs, and a plan that never blocks, are no reason to refuse.
        assert ask(stand, {**body, **dict.fromkeys(more), "tools": [{"type": "function"}]}, "/v1/responses").is_success
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    bounded = ROUTES.replace('path = "/v1/responses"', 'path = "/v1/responses"\ninput_tokens_max = 500')
    with running(tmp_path / "b", replays(ANSWER, "application/json"), plan="free", routes=bounded) as stand:
        assert ask(stand, body, "/v1/responses").is_success
    with running(tmp_path / "c", replays(ANSWER, "application/json"), plan="pro") as stand:
        assert ask(stand, body, "/v1/responses").is_success


@pytest.mark.parametrize("spelling", ["n_predict", "max_new_tokens", "num_predict"])
def test_bounds_as_other_servers_spell_them_are_lowered_too(tmp_path, spelling):
    with running(tmp_path, replays(ANSWER, "application/json"), plan="free") as stand:
        assert ask(stand, {"model": "g", "messages": [], spelling: 1_000_000}).is_success
        assert json.loads(stand.origin.asked[0].body)[spelling] <= 10_000


def endless(asked: Asked, line: Line):
    async def go() -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        piece = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"x" * 30)
        for _ in range(20_000):
            await line.chunk(piece)
            await asyncio.sleep(0)
        await line.end()

    return go()


@pytest.mark.parametrize("stream", [True, "true", 1])
def test_an_upstream_that_ignores_the_clients_bound_is_cut_all_the_same(tmp_path, stream):
    with running(tmp_path, endless, plan="free") as stand:
        answer = ask(stand, {"model": "g", "messages": [], "stream": stream, "max_tokens": 1})
        assert '"error"' in answer.text
        record = stand.record()
        assert record.outcome is Outcome.CUT
        assert record.units_micro <= 10_600_000_000
        assert stand.held_micro() == 0


def test_usage_is_asked_for_by_what_answers_and_not_by_what_the_client_calls_it(tmp_path):
    route = '[[routes]]\nname = "chat"\npath = "/chat"\nrewrite = "/v1/chat/completions"\nupstream = "origin"\n'
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}})
    stream = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    stream += b"data: " + usage.encode() + b"\n\ndata: [DONE]\n\n"
    with running(tmp_path, replays(stream, "text/event-stream"), routes=route) as stand:
        answer = ask(stand, {"model": "g", "messages": [], "stream": True}, "/chat")
        assert "usage" not in answer.text
        assert json.loads(stand.origin.asked[0].body)["stream_options"] == {"include_usage": True}
        assert (stand.record().units_micro, stand.record().source) == (7_000_000, Mark.MEASURED)
