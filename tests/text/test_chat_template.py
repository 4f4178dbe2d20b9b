"""Chat templates against transformers' apply_chat_template."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.text.chat_template import encode_chat, render
from qwen_edge.text.qwen3_template import QWEN3_TEMPLATE
from qwen_edge.text.tokenizer import Tokenizer
from tests.text.make_text import make_texts

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The weather <now> & "here", 天气 it\'s',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln"}}}
U, S, A = "user", "system", "assistant"


def turn(role: str, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


CONVERSATIONS: dict[str, list[dict[str, object]]] = {
    "one": [turn(U, "Hello")],
    "empty": [turn(U, "")],
    "system": [turn(S, "Be brief."), turn(U, "Hello\n")],
    "late system": [turn(U, "a"), turn(A, "b"), turn(S, "c"), turn(U, "d")],
    "turns": [turn(U, "1"), turn(A, "2"), turn(U, "3"), turn(A, "4"), turn(U, "5")],
    "thought": [turn(U, "1"), turn(A, "<think>\nhm\n</think>\n\n2"), turn(U, "3")],
    "ends with thought": [turn(U, "1"), turn(A, "<think>\nhm\n</think>\n\n2")],
    "ends with answer": [turn(U, "1"), turn(A, "\n2")],
    "two thoughts": [turn(U, "1"), turn(A, "<think>a</think>b<think>c</think>\nd"), turn(A, "e")],
    "only an end": [turn(U, "1"), turn(A, "a\n</think>\n\n\nb")],
    "reasoning": [turn(U, "1"), turn(A, "2", reasoning_content="\nwhy\n")],
    "empty reasoning": [turn(U, "1"), turn(A, "2", reasoning_content="")],
    "no reasoning": [turn(U, "1"), turn(A, "2", reasoning_content=None)],
    "other names": [turn(U, "1"), turn(A, "2", reasoning="x"), turn(A, "3", thinking="y")],
    "reasoning and thought": [turn(U, "1"), turn(A, "<think>x</think>2", reasoning_content="y")],
    "answers only": [turn(A, "1"), turn(A, "2")],
    "system only": [turn(S, "1")],
    "tool": [
        turn(U, "Weather?"),
        turn(A, "", tool_calls=[CALL, CALL]),
        turn("tool", '{"t": 20}'),
        turn("tool", "second"),
    ],
    "tool and text": [
        turn(S, "s"),
        turn(U, "Weather?"),
        turn(A, "<think>\nI call\n</think>\n\nLook:", tool_calls=[CALL["function"]]),
        turn("tool", "20"),
        turn(A, "It is 20.", reasoning_content="done"),
        turn(U, "Thanks"),
    ],
    "no content": [turn(U, "Weather?"), turn(A, "", tool_calls=[CALL]), turn("tool", "x")],
    "arguments as text": [
        turn(U, "w"),
        turn(A, "x", tool_calls=[{"name": "f", "arguments": '{"a": 1}'}]),
        turn(U, "y"),
    ],
    "results from the user": [
        turn(U, "1"),
        turn(A, "", reasoning_content="r", tool_calls=[CALL]),
        turn(U, "<tool_response>\n7\n</tool_response>"),
        turn(A, "2", reasoning_content="q"),
    ],
    "other role": [turn("developer", "1"), turn(U, "2")],
    "extra keys": [turn(U, "1", name="x", tool_calls=None, n=[1, {"a": 2.5}])],
    "unicode": [turn(U, "😀 e\u0301 \x00 \ufdd0 \ue000"), turn(A, "中\u3000"), turn(U, "\r\n")],
}


@pytest.fixture(scope="session")
def transformers_tokenizer(qwen3_dir: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    settings = json.loads((qwen3_dir / "tokenizer_config.json").read_text(encoding="utf-8"))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(qwen3_dir / "tokenizer.json"),
        chat_template=settings["chat_template"],
    )


def test_the_template_is_the_published_one(qwen3_dir: Path) -> None:
    settings = json.loads((qwen3_dir / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["chat_template"] == QWEN3_TEMPLATE


def options() -> list[dict[str, Any]]:
    thinking: list[dict[str, Any]] = [{}, {"enable_thinking": True}, {"enable_thinking": False}]
    tools: list[dict[str, Any]] = [{}, {"tools": [WEATHER]}, {"tools": []}]
    prompts: list[dict[str, Any]] = [{"add_generation_prompt": flag} for flag in (True, False)]
    return [a | b | c for a, b, c in itertools.product(thinking, tools, prompts)]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_qwen3_renders_and_encodes_as_in_transformers(
    transformers_tokenizer: Any, tokenizer: Tokenizer, name: str
) -> None:
    messages = CONVERSATIONS[name]
    for each in options():
        expected = transformers_tokenizer.apply_chat_template(messages, tokenize=False, **each)
        assert render(QWEN3_TEMPLATE, messages, **each) == expected
        # The same through Jinja: a comment makes it another template.
        assert render(QWEN3_TEMPLATE + "{# #}", messages, **each) == expected
        if name != "results from the user":
            ids = encode_chat(
                tokenizer, QWEN3_TEMPLATE, messages, **{"enable_thinking": None, **each}
            )
            assert ids == transformers_tokenizer.encode(expected, add_special_tokens=False)


def test_random_conversations_render_alike_with_and_without_jinja(
    transformers_tokenizer: Any,
) -> None:
    chance = random.Random(11)
    pieces = ["", "\n", "\n\n", "<think>", "</think>", "<tool_response>", "</tool_response>", " a "]
    for _ in range(400):
        messages: list[dict[str, object]] = []
        for _ in range(chance.randint(1, 7)):
            content = "".join(chance.choices(pieces, k=chance.randint(0, 6)))
            more = {"reasoning_content": "".join(chance.choices(pieces, k=2))}
            role = chance.choice([U, U, A, A, S])
            messages.append(turn(role, content, **(more if chance.random() < 0.3 else {})))
        flags: dict[str, Any] = {"enable_thinking": chance.choice([True, False])}
        flags["add_generation_prompt"] = chance.choice([True, False])
        expected = transformers_tokenizer.apply_chat_template(messages, tokenize=False, **flags)
        assert render(QWEN3_TEMPLATE, messages, **flags) == expected, messages


def test_generated_text_in_messages(transformers_tokenizer: Any, tokenizer: Tokenizer) -> None:
    control = tuple(tokenizer.special_ids())
    for text in make_texts(12, 300):
        if any(token in text for token in control):
            continue
        messages = [turn(S, text), turn(U, text), turn(A, text), turn(U, text)]
        expected = transformers_tokenizer.apply_chat_template(messages, tokenize=False)
        assert render(QWEN3_TEMPLATE, messages, add_generation_prompt=False) == expected
        ids = encode_chat(
            tokenizer, QWEN3_TEMPLATE, messages, enable_thinking=None, add_generation_prompt=False
        )
        assert ids == transformers_tokenizer.encode(expected, add_special_tokens=False)


def test_plain_conversations_load_no_heavy_module() -> None:
    code = (
        "import json, sys\n"
        "from qwen_edge.text.chat_template import render\n"
        "from qwen_edge.text.qwen3_template import QWEN3_TEMPLATE\n"
        "for messages in json.loads(sys.argv[1]): render(QWEN3_TEMPLATE, messages)\n"
        "print([name for name in ('jinja2', 'numpy', 'torch') if name in sys.modules])"
    )
    plain = [CONVERSATIONS[name] for name in ("thought", "system", "reasoning")]
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, json.dumps(plain)]
    assert subprocess.check_output(command, cwd=root, text=True) == "[]\n"


FEATURES = {
    "trimming": "  {% if true %}\n  a\n  {% endif %}\n b {%- if 1 %} c {% endif -%}\n\n d\n",
    "loop controls": "{% for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}"
    "{% if loop.index > 3 %}{% break %}{% endif %}{{ loop.index }}{{ m.role }}{% endfor %}",
    "loop variables": "{% for m in messages %}{{ loop.index0, loop.last, loop.changed(m.role), "
    "loop.cycle('x', 'y'), loop.revindex }}{% else %}none{% endfor %}",
    "loop else and filter": "{% for m in messages if m.role == 'no' %}x{% else %}none{% endfor %}",
    "recursive": "{% for m in [[1, [2]], 3] recursive %}{{ loop(m) if m is iterable else m }}"
    "{% endfor %}",
    "unpacking": "{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}",
    "namespace": "{% set ns = namespace(a=1, self='s') %}{% for m in messages %}"
    "{% set ns.a = ns.a * 2 %}{% endfor %}{{ ns.a }}{{ ns.self }}",
    "macro": "{% macro say(x, y='d') %}[{{ x }}|{{ y }}|{{ caller() if caller }}]{% endmacro %}"
    "{{ say(1) }}{% call say(2, y=3) %}in{% endcall %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}\n{% endgeneration %}"
    "{% endfor %}!",
    "json": "{{ messages | tojson }}{{ {'b': '<é>', 'a': [1, none]} | tojson(indent=2) }}"
    "{{ [1] | tojson(ensure_ascii=True, separators=(',', ':')) }}",
    "slices": "{{ messages[:1][0].content }}{{ messages[::-1] | length }}{{ 'abc'[-1] }}",
    "operators": "{{ 'a' ~ 1 ~ none }}{{ 'a' + 'b' }}{{ 'ab' * 3 }}{{ 7 // 2 }}{{ 2 ** 5 }}"
    "{{ 7 % 4 }}{{ '%s-%03d' % ('x', 5) }}{{ [1] + [2] }}{{ 1 < 2 < 3 }}{{ 'a' in 'abc' }}"
    "{{ 2 not in [1] }}",
    "tests": "{{ a is defined }}{{ messages is sequence }}{{ 'x' is string }}{{ 3 is odd }}"
    "{{ none is none }}{{ {} is mapping }}{{ 3 is divisibleby(3) }}{{ 2 is in([2]) }}",
    "filters": "{{ ' x ' | trim }}{{ messages | map(attribute='role') | join(',') }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'aXb' | lower }}"
    "{{ a | default('d') }}{{ [3, 1] | sort | first }}{{ 'a-b' | replace('-', '+') }}"
    "{{ 'a\nb' | indent(4) }}{{ 3.7 | int }}{{ '5' | int + 1 }}{{ {'k': 1} | items | list }}"
    "{{ '<' | e }}{{ 'ab' | list }}{{ 'x' | upper | capitalize }}{{ [1, 2] | sum }}",
    "methods": "{{ 'a,b'.split(',') }}{{ '  x'.strip() }}{{ 'abc'.startswith(('b', 'a')) }}"
    "{{ '-'.join(['a', 'b']) }}{{ 'ab'.replace('b', 'c') }}{{ 'x'.upper() }}{{ 'Ab'.title() }}"
    "{{ messages[0].get('role') }}{{ '{}:{:>4}'.format('a', 3) }}{{ 'a'.center(5) }}",
    "set block": "{% set x %} a {{ messages[0].content }}{% endset %}[{{ x | trim }}]",
    "filter block": "{% filter upper %}abc{{ messages[0].content }}{% endfilter %}",
    "globals": "{{ range(3) | list }}{{ dict(a=1) }}{{ strftime_now('%Y') }}"
    "{% set j = joiner(',') %}{{ j() }}a{{ j() }}{% set c = cycler(1, 2) %}{{ c.next() }}",
    "undefined": "[{{ nothing }}{{ messages[0].nothing }}{{ tools }}{{ documents }}{{ bos }}]",
    "blocks": "{% block a %}x{{ messages | length }}{% endblock %}{{ self.a() }}",
    "with": "{% with a = 1, b = [2] %}{{ a, b }}{% endwith %}{{ a }}",
    "conditional": "{{ 'y' if messages else 'n' }}"
    "{% if not tools and messages | length > 1 %}z{% endif %}",
    "whitespace control": "{%- for m in messages -%}\n {{- m.role -}} \n{%- endfor -%}\n",
}


@pytest.mark.parametrize("name", FEATURES)
def test_other_templates_render_as_in_transformers(transformers_tokenizer: Any, name: str) -> None:
    for messages in (CONVERSATIONS["one"], CONVERSATIONS["turns"]):
        expected = transformers_tokenizer.apply_chat_template(
            messages, chat_template=FEATURES[name], tokenize=False, add_generation_prompt=True
        )
        assert render(FEATURES[name], messages) == expected
