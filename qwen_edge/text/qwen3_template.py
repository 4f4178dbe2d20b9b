"""Qwen3's own chat template, and the same rendering without Jinja.

Importing Jinja takes as long as the rest of a short answer's start-up, so plain conversations under
exactly this template are rendered here. The tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# From Qwen3's tokenizer_config.json (Apache License 2.0), the same for all sizes.
QWEN3_TEMPLATE = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in message.content %}
                {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
                {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}""".strip("\n")  # noqa: E501


def render_plain(
    messages: Sequence[Mapping[str, object]],
    add_generation_prompt: bool,
    enable_thinking: bool | None,
) -> str | None:
    """Renders system, user and assistant messages of plain text as QWEN3_TEMPLATE does.

    Returns:
        The prompt, or None when the conversation needs more than that (tools, other roles).
    """
    turns: list[tuple[str, str, str | None]] = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        reasoning = message.get("reasoning_content")
        if not isinstance(content, str) or not isinstance(reasoning, str | None):
            return None
        if role not in ("system", "user", "assistant") or message.get("tool_calls"):
            return None
        turns.append((str(role), content, reasoning))
    query = _last_query(turns)
    parts = []
    for index, (role, content, reasoning) in enumerate(turns):
        if role == "assistant":
            last = index == len(turns) - 1
            content = _answer(content, reasoning, after_query=index > query, last=last)
        parts.append(f"<|im_start|>{role}\n{content}<|im_end|>\n")
    if add_generation_prompt:
        parts.append("<|im_start|>assistant\n")
        if enable_thinking is False:
            parts.append("<think>\n\n</think>\n\n")
    return "".join(parts)


def _last_query(turns: Sequence[tuple[str, str, str | None]]) -> int:
    """Index of the last message that the user wrote; tool results come in user messages too."""
    for index in range(len(turns) - 1, -1, -1):
        role, content, _ = turns[index]
        is_result = content.startswith("<tool_response>") and content.endswith("</tool_response>")
        if role == "user" and not is_result:
            return index
    return len(turns) - 1


def _answer(content: str, reasoning: str | None, *, after_query: bool, last: bool) -> str:
    """An assistant message; the thinking of earlier rounds is left out."""
    if reasoning is None:
        reasoning = ""
        if "</think>" in content:
            parts = content.split("</think>")
            reasoning = parts[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
            content = parts[-1].lstrip("\n")
    if after_query and (last or reasoning):
        inner = reasoning.strip("\n")
        return f"<think>\n{inner}\n</think>\n\n" + content.lstrip("\n")
    return content
