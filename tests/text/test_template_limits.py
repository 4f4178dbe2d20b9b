"""Hostile and broken chat templates end soon, in small memory, as an error about the model."""

from __future__ import annotations

import time

import pytest

from qwen_edge.errors import DamagedModelError, UsageError
from qwen_edge.text.chat_template import render

MESSAGES = [{"role": "user", "content": "hi"}]
BIG = "{% set l = range(100000) | list %}{% for i in range(100000) %}"
GROW = "{% set n = namespace(s='ab', l=[1], i=10) %}{% for i in range(99) %}"
END = "{% endfor %}"

ENDLESS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}" + END,
    "filtered loops": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}"
    + END,
    "range": "{{ range(10 ** 9) }}",
    "doubling": GROW + "{% set n.s = n.s ~ n.s %}" + END,
    "adding": GROW + "{% set n.s = n.s + n.s %}" + END,
    "adding lists": GROW + "{% set n.l = n.l + n.l %}" + END,
    "nesting lists": GROW + "{% set n.l = [n.l, n.l] %}" + END + "{{ n.l }}",
    "nesting dicts": GROW + "{% set n.l = dict(a=n.l, b=n.l) %}" + END + "{{ n.l | tojson }}",
    "squaring": GROW + "{% set n.i = n.i * n.i %}" + END + "{{ n.i }}",
    "power": "{{ 10 ** (10 ** 8) }}",
    "repetition": "{{ 'a' * 10 ** 10 }}",
    "list repetition": "{{ ([0] * 100000) * 100000 }}",
    "replacing": GROW + "{% set n.s = n.s | replace('a', n.s) %}" + END,
    "replacing by method": GROW + "{% set n.s = n.s.replace('b', n.s) %}" + END,
    "joining": GROW + "{% set n.s = n.s.join(n.s) %}" + END,
    "joining by filter": GROW + "{% set n.s = n.s | join(n.s) %}" + END,
    "format": "{{ '{:999999999}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, 999999999) }}",
    "format map": "{{ '{a:999999999}'.format_map({'a': 1}) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (999999999, 1) }}",
    "percent filter": "{{ '%999999999d' | format(1) }}",
    "time": "{{ strftime_now('%0999999999d') }}",
    "center": "{{ 'a' | center(999999999) }}",
    "justify": "{{ 'a'.ljust(999999999) }}",
    "tabs": "{{ ('\\t' * 10000).expandtabs(100000) }}",
    "indent": "{{ ('a\\n' * 100000) | indent(100000) }}",
    "json indent": "{{ [[1, 2], [3]] | tojson(indent=1000000) }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slices": "{{ [1] | slice(1000000000) | list }}",
    "rounding": "{{ 1.5 | round(1000000000, 'ceil') }}",
    "bytes of an int": "{{ (1).to_bytes(1000000000, 'big') }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "tree": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "loop recursion": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}" + END,
    "literal text": "{% for i in range(99999) %}" + "A" * 200_000 + END,
    "literal text kept": "{% set x %}{% for i in range(99999) %}"
    + "A" * 200_000
    + END
    + "{% endset %}",
    "searching": BIG + "{% if 'x' in l %}{% endif %}" + END,
    "searching by test": BIG + "{% if 'x' is in(l) %}{% endif %}" + END,
    "searching values": BIG + "{% if 'x' in dict.fromkeys(l).values() %}{% endif %}" + END,
    "searching ranges": BIG + "{% if 'x' in range(99999) %}{% endif %}" + END,
    "slicing": BIG + "{% set m = l[::-1] %}" + END,
    "selecting": BIG + "{% for j in l | select if false %}{% endfor %}" + END,
    "counting": BIG + "{% set m = l.count('x') %}" + END,
    "summing": BIG + "{% set m = l | sum %}" + END,
    "changing": BIG + "{{ loop.changed(l) }}" + END,
    "comparing": "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}"
    "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
    "mapping": "{{ (['a' * 99999] * 999) | map('replace', 'a', 'b' * 999) | join }}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_templates(name: str) -> None:
    start = time.process_time()
    with pytest.raises(DamagedModelError) as refusal:
        render(ENDLESS[name], MESSAGES)
    assert time.process_time() - start < 10
    assert refusal.value.hint
    assert len(str(refusal.value)) < 700


BROKEN = {
    "syntax": "{% if %}",
    "unclosed": "{% for m in messages %}",
    "undefined": "{{ a.b.c }}",
    "unknown filter": "{{ 'a' | no_such_filter }}",
    "unknown tag": "{% no_such_tag %}",
    "division": "{{ 1 / 0 }}",
    "types": "{{ 'a' + 1 }}",
    "call": "{{ messages() }}",
    "include": "{% include 'x' %}",
    "extends": "{% extends '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "classes": "{{ ''.__class__.__mro__ }}",
    "function internals": "{{ cycler.__init__.__globals__ }}",
    "namespace internals": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "change": "{{ messages.append(1) }}",
    "change of a message": "{{ messages[0].update(role='system') }}",
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "blocks": "{% if true %}" * 300 + "{% endif %}" * 300,
    "chain": "{{ " + "1+" * 20_000 + "1 }}",
    "negations": "{{ " + "not " * 50_000 + "1 }}",
    "length": "a" * (1 << 19),
    "surrogate": "{{ '\ud800' | urlencode }}",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_templates(name: str) -> None:
    with pytest.raises(DamagedModelError):
        render(BROKEN[name], MESSAGES)


def test_a_template_may_refuse_messages() -> None:
    with pytest.raises(UsageError, match=r"Roles must alternate\.$"):
        render("{{ raise_exception('Roles must alternate.') }}", MESSAGES)


def test_the_limits_grow_with_the_conversation() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' and m.content != '' %}"
        "{{ m.role ~ ': ' ~ m.content | trim ~ messages[loop.index0 - 1].content[:3] }}"
        "{% endif %}{% endfor %}"
    )
    messages = [{"role": "user", "content": "word " * 2000} for _ in range(400)]
    assert len(render(template, messages)) > 3_900_000


@pytest.mark.parametrize(
    "messages",
    [[], ["text"], [{"role": "user", "content": object()}], [{"role": "user", "content": b"x"}]],
)
def test_what_is_not_a_conversation(messages: list[dict[str, object]]) -> None:
    with pytest.raises(UsageError):
        render("x", messages)


def test_messages_nested_without_end() -> None:
    value: list[object] = []
    for _ in range(10_000):
        value = [value]
    with pytest.raises(UsageError):
        render("x", [{"role": "user", "content": value}])
