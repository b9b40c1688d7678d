"""What the fake provider bills for a request: the figures that a gateway in front of it has to arrive at.

The rule: computed from the request alone, by the tokenizer of ``tokens`` and the texts of ``paragraphs``.
"""

from collections.abc import Mapping
from typing import Any

from gatekeeper.demo.asking import Api, answer

# Every picture is the same: what OpenAI bills for one small picture of low quality.
IMAGE_TOKENS = 272


def expected_usage(dialect: str, request_json: Mapping[str, Any], model: str = "") -> dict[str, int]:
    """``{"input", "output", "total"}`` in tokens for a call that runs to its end.

    ``dialect`` is a value of ``Api`` (``openai`` is chat completions). ``model`` is only needed where it stands in the
    path (Gemini). Counting tokens is free, so those two give zeros. Raises BadAsk for a body that is answered 400.
    """
    api = Api(dialect)
    counted = answer(api, request_json, model)
    if api in (Api.ANTHROPIC_COUNT, Api.GEMINI_COUNT):
        return {"input": 0, "output": 0, "total": 0}
    output = counted.output_tokens
    if api is Api.OPENAI_IMAGES:
        output = IMAGE_TOKENS * images(request_json)
    return {"input": counted.input_tokens, "output": output, "total": counted.input_tokens + output}


def images(request_json: Mapping[str, Any]) -> int:
    """How many pictures are asked for."""
    asked = request_json.get("n")
    return asked if isinstance(asked, int) and 1 <= asked <= 10 else 1
