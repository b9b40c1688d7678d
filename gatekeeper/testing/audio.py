"""OpenAI's audio: transcriptions (in seconds or in tokens), translations and speech; source: the API reference, and
recordings.

The rule: what is billed by time says seconds and no tokens; a body that is no JSON says nothing.
"""

from decimal import Decimal
from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Framing, Habits, Script, Step, Switches, SwitchWords, Telling, Usage, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely, up_to

_DIALECT = "openai_audio"
BILLINGS = ("seconds", "tokens")


def transcription_streams(
    billing: str | tuple[str, ...] = BILLINGS, **switches: Unpack[SwitchWords]
) -> SearchStrategy[ProviderStream]:
    """Answers of ``/v1/audio/transcriptions`` and ``/v1/audio/translations``.

    ``billing``: ``"seconds"`` (whisper: never a stream), ``"tokens"`` (gpt-4o-transcribe), or both. Other keywords: see
    ``Switches``; with ``streamed=True`` only tokens are left. Raises ValueError for another billing.
    """
    names = (billing,) if isinstance(billing, str) else tuple(billing)
    if not names or not set(names) <= set(BILLINGS):
        raise ValueError(f"billing {names} is not among {', '.join(BILLINGS)}")
    return _transcriptions(names, Switches(**switches))


def speech_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of ``/v1/audio/speech``: audio, which says nothing, or events, the last of which says tokens. Keywords:
    see ``Switches``."""
    return _speech(Switches(**switches))


@st.composite
def _transcriptions(draw: DrawFn, names: tuple[str, ...], switches: Switches) -> ProviderStream:
    billing = draw(st.sampled_from(names))
    streamed = billing == "tokens" and draw(st.booleans()) if switches.streamed is None else switches.streamed
    billing = "tokens" if streamed else billing
    text = "".join(draw_words(draw, switches.noise))
    if not streamed and switches.errors and switches.usage is not True and rarely(draw, 6):
        return draw_stream(draw, refusal(draw, _DIALECT, billing), switches)
    says = "total" if billing == "tokens" else "seconds"
    if switches.usage is False or (switches.usage is None and not streamed and rarely(draw, 4)):
        usage, truth = None, None
    elif billing == "tokens":
        usage, truth = _tokens(draw)
    else:
        # Quarters are exact in binary too.
        quarters = draw(st.integers(0, 40_000))
        seconds = Decimal(quarters) / 4
        usage = {"type": "duration", "seconds": quarters // 4 if quarters % 4 == 0 else quarters / 4}
        truth = {"input": None, "output": None, "total": None, "seconds": seconds}
    told: dict[str, Any] = {} if usage is None else {"usage": usage}
    notes = [billing] if told else [billing, "no usage"]
    if streamed:
        return draw_stream(draw, _transcript(draw, text, told, truth, notes, switches), switches)
    habits = Habits(indented=draw(st.booleans()))
    if not told and draw(st.booleans()):
        script = single(_DIALECT, billing, "1\n00:00:00,000 --> 00:00:07,000\nHi\n", None, *notes, says=says,
                        content_type="text/plain; charset=utf-8")  # fmt: skip
    else:
        script = single(_DIALECT, billing, {"text": text, **told}, truth, *notes, says=says, habits=habits)
    return draw_stream(draw, script, switches)


def _tokens(draw: DrawFn) -> tuple[dict[str, Any], Usage]:
    given, made = draw(counts()), draw(counts())
    heard = draw(up_to(given))
    usage: dict[str, Any] = {"type": "tokens", "total_tokens": given + made, "input_tokens": given}
    usage |= {"input_token_details": {"text_tokens": given - heard, "audio_tokens": heard}, "output_tokens": made}
    return usage, {"input": given, "output": made, "total": given + made, "audio_input": heard}


def _transcript(
    draw: DrawFn, text: str, told: dict[str, Any], truth: Usage | None, notes: list[str], switches: Switches
) -> Script:
    telling = Telling(notes=notes)
    telling.say({"type": "transcript.text.delta", "delta": text})
    if switches.errors and switches.usage is not True and rarely(draw, 6):
        telling.notes.append("error in the stream")
        telling.say({"type": "error", "error": {"type": "server_error", "message": "Failed"}})
    else:
        telling.say({"type": "transcript.text.done", "text": text, **told}, usage=truth)
    return telling.script(_DIALECT, "tokens", "text/event-stream")


@st.composite
def _speech(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.booleans()) if switches.streamed is None else switches.streamed
    if switches.usage is True:
        streamed = True
    if not streamed:
        if switches.errors and rarely(draw, 6):
            return draw_stream(draw, refusal(draw, _DIALECT, "speech"), switches)
        sound = Step("ID3\x04\x00\x00", None)
        script = Script(_DIALECT, "speech", Framing.JSON, "audio/mpeg", (sound,), ("audio",))
        return draw_stream(draw, script, switches)
    telling = Telling(notes=["events"])
    for _ in range(draw(st.integers(1, 3))):
        telling.say({"type": "speech.audio.delta", "audio": "AQI="}, "speech.audio.delta")
    if switches.usage is False:
        telling.notes.append("no usage")
        telling.say({"type": "speech.audio.done"}, "speech.audio.done")
    else:
        given, made = draw(counts()), draw(counts())
        usage = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
        truth = {"input": given, "output": made, "total": given + made}
        telling.say({"type": "speech.audio.done", "usage": usage}, "speech.audio.done", usage=truth)
    return draw_stream(draw, telling.script(_DIALECT, "speech", "text/event-stream"), switches)
