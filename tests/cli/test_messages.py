"""Every message has its Chinese, with the same fields."""

from __future__ import annotations

import string
from typing import Any

import pytest

from qwen_edge.cli.commands import COMMANDS, SUMMARY, load_command
from qwen_edge.cli.language import language, localized, translate
from qwen_edge.cli.messages_zh import MESSAGES
from qwen_edge.session.setting_table import SETTINGS
from tests.cli.templates import error_templates, told_templates


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_every_error_has_a_translation() -> None:
    found = list(error_templates())
    assert len(found) > 100, "the search through the source finds the errors"
    missing = {f"{each.place} {each.template!r}" for each in found if each.template not in MESSAGES}
    assert not missing


def test_every_note_has_a_translation() -> None:
    missing = {
        f"{each.place} {each.template!r}"
        for each in told_templates()
        if each.template not in MESSAGES
    }
    assert not missing


def help_texts(command: Any) -> set[str]:
    texts = {command.help, *(getattr(parameter, "help", None) for parameter in command.params)}
    for subcommand in getattr(command, "commands", {}).values():
        texts |= help_texts(subcommand)
    return {text for text in texts if text}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text_has_a_translation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_EDGE_LANG", "en")
    texts = help_texts(load_command(name)) | {SUMMARY, *COMMANDS.values()}
    assert texts - MESSAGES.keys() == set()


def test_settings_have_translations() -> None:
    texts = {text for known in SETTINGS.values() for text in (known.help, known.allowed)}
    # A range that is only names and numbers reads the same in every language.
    spelled = {text for text in texts if " " in text.replace(", ", "")}
    assert spelled - MESSAGES.keys() == set()


@pytest.mark.parametrize("template", MESSAGES)
def test_translations_keep_the_fields(template: str) -> None:
    assert fields(MESSAGES[template]) == fields(template)
    assert MESSAGES[template].strip() == MESSAGES[template] != ""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_GB.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
        ({"LC_ALL": "de_DE", "QWEN_EDGE_LANG": "zh"}, "zh"),
        ({"LC_ALL": "zh_TW.UTF-8", "QWEN_EDGE_LANG": "en"}, "en"),
    ],
)
def test_the_language_follows_the_locale(variables: dict[str, str], expected: str) -> None:
    assert language(variables) == expected


def test_unknown_texts_stay_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_EDGE_LANG", "zh")
    assert translate("Nobody translated this.") == "Nobody translated this."
    assert localized("error:", {}) == "错误："
