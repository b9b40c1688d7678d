"""Runs of OpenAI's Assistants; source: the API reference of run objects and their events, and recordings.

The rule: every step says what it used, and the run says the sum: the run is the truth, and steps without it are none.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Script, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely, up_to

_DIALECT = "assistants"
_CREATED = 1_774_963_893
_FAILED = {"code": "server_error", "message": "Sorry, something went wrong."}


def assistants_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of ``/v1/threads/runs``, ``/v1/threads/{id}/runs`` and ``.../submit_tool_outputs``. An answer that is
    not streamed comes before anything was used, and says nothing. Keywords: see ``Switches``."""
    return _streams(Switches(**switches))


@st.composite
def _streams(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.sampled_from((True, True, True, False))) if switches.streamed is None else switches.streamed
    if streamed or switches.usage is True:
        script = _Run(draw, switches).script()
    elif switches.errors and rarely(draw, 6):
        script = refusal(draw, _DIALECT, "openai")
    else:
        script = single(_DIALECT, "openai", _run("queued", None), None, "not begun: no usage yet")
    return draw_stream(draw, script, switches)


def _run(status: str, usage: Any, **more: Any) -> dict[str, Any]:
    run: dict[str, Any] = {"id": "run_x", "object": "thread.run", "created_at": _CREATED, "assistant_id": "asst_x"}
    run |= {"thread_id": "thread_x", "status": status, "required_action": None, "last_error": None}
    run |= {"model": "gpt-4o-mini", "tools": [], "metadata": {}, "incomplete_details": None, "usage": usage}
    return {**run, **more}


def _step(status: str, kind: str, usage: Any) -> dict[str, Any]:
    step: dict[str, Any] = {"id": "step_x", "object": "thread.run.step", "created_at": _CREATED, "run_id": "run_x"}
    step |= {"assistant_id": "asst_x", "thread_id": "thread_x", "type": kind, "status": status, "last_error": None}
    details: dict[str, Any] = {"type": kind, kind: [] if kind == "tool_calls" else {"message_id": "msg_x"}}
    return {**step, "step_details": details, "usage": usage}


class _Run:
    """One streamed run."""

    def __init__(self, draw: DrawFn, switches: Switches) -> None:
        self.draw, self.switches = draw, switches
        self.telling = Telling()
        self.used: list[dict[str, int]] = []

    def script(self) -> Script:
        """The whole of it."""
        for status in ("created", "queued", "in_progress"):
            self.telling.say(_run("queued" if status == "created" else status, None), f"thread.run.{status}")
        kinds = self.draw(st.lists(st.just("tool_calls"), max_size=2))
        for kind in (*kinds, "message_creation"):
            self._tell_step(kind)
        self._end()
        self.telling.say("[DONE]", "done")
        return self.telling.script(_DIALECT, "openai", "text/event-stream; charset=utf-8")

    def _tell_step(self, kind: str) -> None:
        say = self.telling.say
        say(_step("in_progress", kind, None), "thread.run.step.created")
        if kind == "message_creation":
            for word in draw_words(self.draw, self.switches.noise):
                content = [{"index": 0, "type": "text", "text": {"value": word, "annotations": []}}]
                delta = {"id": "msg_x", "object": "thread.message.delta", "delta": {"content": content}}
                say(delta, "thread.message.delta")
        given, made = self.draw(counts()), self.draw(counts())
        parts = {"cached": self.draw(up_to(given)), "reasoning": self.draw(up_to(made))}
        self.used.append({"given": given, "made": made, **parts})
        say(_step("completed", kind, _usage(self.used[-1])), "thread.run.step.completed")

    def _end(self) -> None:
        whole = {name: sum(step[name] for step in self.used) for name in self.used[0]}
        endings = ["completed", "incomplete", *(["failed"] if self.switches.errors else [])]
        if self.switches.usage is False:
            endings = ["requires_action"]
        elif self.switches.usage is None:
            endings.append("requires_action")
        ending = self.draw(st.sampled_from(endings))
        self.telling.notes.append(f"the run is {ending}")
        if ending == "requires_action":
            # It waits for its caller: the steps have said what they used, the run has not.
            waiting = _run(ending, None, required_action={"type": "submit_tool_outputs"})
            self.telling.say(waiting, f"thread.run.{ending}")
            return
        error = {"last_error": _FAILED} if ending == "failed" else {}
        given, made = whole["given"], whole["made"]
        truth = {"input": given, "output": made, "total": given + made}
        truth |= {"cached_input": whole["cached"], "reasoning": whole["reasoning"]}
        self.telling.say(_run(ending, _usage(whole), **error), f"thread.run.{ending}", usage=truth)


def _usage(of: dict[str, int]) -> dict[str, Any]:
    return {
        "prompt_tokens": of["given"], "completion_tokens": of["made"], "total_tokens": of["given"] + of["made"],
        "prompt_token_details": {"cached_tokens": of["cached"]},
        "completion_tokens_details": {"reasoning_tokens": of["reasoning"]},
    }  # fmt: skip
