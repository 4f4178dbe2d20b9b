"""From messages to a prompt: chat templates as transformers applies them, without trusting them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qwen_edge.errors import DamagedModelError, QwenEdgeError, UsageError
from qwen_edge.text.control_tokens import Shield
from qwen_edge.text.qwen3_template import QWEN3_TEMPLATE, render_plain
from qwen_edge.text.tokenizer import Tokenizer

# Names under which clients send an assistant's thinking; templates read the first.
_REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
_MAX_DEPTH = 64

Messages = Sequence[Mapping[str, object]]


def render(
    template: str,
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
    enable_thinking: bool | None = None,
    tools: Sequence[Mapping[str, object]] | None = None,
) -> str:
    """The prompt that a chat template makes of a conversation.

    Args:
        template: Jinja source from a model file.
        messages: each with ``role`` and ``content``, perhaps ``reasoning_content``, ``tool_calls``.
            A key whose value is None counts as absent.
        add_generation_prompt: whether to open the assistant's answer.
        enable_thinking: left undefined for the template when None.
        tools: JSON schemas of functions.

    Raises:
        DamagedModelError: the template is malformed, hostile, or fails on these messages.
        UsageError: there is no message, one is not plain data, or the template refuses them.
    """
    plain = _plain_messages(messages)
    return _render(template, plain, _plain_tools(tools), add_generation_prompt, enable_thinking)


def encode_chat(
    tokenizer: Tokenizer,
    template: str,
    messages: Messages,
    *,
    enable_thinking: bool | None,
    tools: Sequence[Mapping[str, object]] | None = None,
    add_generation_prompt: bool = True,
) -> list[int]:
    """The token ids of a conversation; only the template can write control tokens.

    In what users, tools and the system prompt say, and in tool calls, the text of an added token
    (``<|im_end|>``, ``<tool_call>``) is encoded as plain text. An assistant's own text keeps
    those that are not special, because ``<think>`` and ``<tool_call>`` are part of what it said.

    Raises:
        DamagedModelError: as for ``render``.
        UsageError: as for ``render``.
    """
    plain = _plain_messages(messages)
    schemas = _plain_tools(tools)
    shield = Shield(tokenizer, [template, *_strings([plain, schemas])])
    guarded = [
        {
            key: shield.guard(value, own=message.get("role") == "assistant" and key != "tool_calls")
            for key, value in message.items()
        }
        for message in plain
    ]
    guarded_schemas = [shield.guard(schema) for schema in schemas] if schemas else schemas
    text = _render(template, guarded, guarded_schemas, add_generation_prompt, enable_thinking)
    return shield.encode(text)


def _render(
    template: str,
    messages: list[dict[str, object]],
    tools: list[object] | None,
    add_generation_prompt: bool,
    enable_thinking: bool | None,
) -> str:
    if template == QWEN3_TEMPLATE and not tools:
        text = render_plain(messages, add_generation_prompt, enable_thinking)
        if text is not None:
            return text
    variables: dict[str, object] = {
        "messages": messages,
        "tools": tools,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
    }
    if enable_thinking is not None:
        variables["enable_thinking"] = enable_thinking
    return _run(template, variables)


def _run(template: str, variables: dict[str, object]) -> str:
    # Jinja takes as long to import as everything else that an answer needs.
    from qwen_edge.text.template_globals import Refused
    from qwen_edge.text.template_sandbox import MAX_SOURCE, run_template

    hint = "Download or convert the model again; its makers may have corrected the template."
    if len(template) > MAX_SOURCE:
        raise DamagedModelError(
            "The model's chat template is too long: {size} characters.", hint, size=len(template)
        )
    size = sum(map(len, _strings(variables)))
    try:
        return run_template(template, variables, size)
    except Refused as error:
        raise UsageError(
            "The chat template refuses these messages: {reason}.",
            "Check the roles of the messages and their order.",
            reason=str(error).rstrip("."),
        ) from None
    except (QwenEdgeError, MemoryError):
        raise
    except Exception as error:  # a template can raise anything
        raise DamagedModelError(
            "The model's chat template fails: {reason}.",
            hint,
            reason=f"{type(error).__name__}: {error}"[:500].rstrip("."),
        ) from None


def _plain_messages(messages: Messages) -> list[dict[str, object]]:
    """Copies of the messages as templates expect them: plain data, no None, one thinking key."""
    if not messages:
        raise UsageError("There is no message to answer.")
    plain = []
    for message in messages:
        copy = _plain(message)
        if not isinstance(copy, dict):
            raise UsageError("A message must be an object with role and content.")
        copy = {key: value for key, value in copy.items() if value is not None}
        reasoning = next((copy[key] for key in _REASONING_NAMES if key in copy), None)
        if reasoning is not None:
            copy = {"thinking": reasoning, **copy, "reasoning_content": reasoning}
        plain.append(copy)
    return plain


def _plain_tools(tools: Sequence[Mapping[str, object]] | None) -> list[object] | None:
    return None if tools is None else [_plain(tool) for tool in tools]


def _plain(value: object, depth: int = 0) -> object:
    """A copy of ``value`` made of exact JSON types, whose methods the sandbox knows."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if depth > _MAX_DEPTH:
        raise UsageError("A message is nested too deeply.")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    raise UsageError("A message holds {kind}, which is not text.", kind=type(value).__name__)


def _strings(value: object) -> Iterable[str]:
    """Every string inside plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
