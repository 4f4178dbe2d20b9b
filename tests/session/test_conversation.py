"""Answers: thoughts, stop strings, budgets. Conversations: what is kept, what is left out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.errors import MemoryLimitError, UsageError
from qwen_edge.session.answer import Answer, AnswerText, Done, Event, ThinkingText
from qwen_edge.session.conversation import Conversation, Message, encode_messages
from qwen_edge.session.stop_text import StopFinder
from tests.session.scripted import ScriptedModel, options


def ask(model: ScriptedModel, say: str, **changes: object) -> tuple[Answer, list[Event]]:
    model.will_say(say)
    chosen = options(**changes)
    ids = encode_messages(model.chat, [Message("user", "q")], chosen.thinking)
    answer = Answer(model.chat, ids, chosen)
    return answer, list(answer)


def texts(events: list[Event], kind: type[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))  # type: ignore[union-attr]


def test_events_end_with_done_and_join_to_the_answer() -> None:
    answer, events = ask(ScriptedModel(), "Hello, 世界!")
    assert isinstance(events[-1], Done)
    assert not any(isinstance(event, Done) for event in events[:-1])
    assert texts(events, AnswerText) == answer.text == "Hello, 世界!"
    assert answer.thinking == ""
    assert answer.stats.finish_reason == "stop"
    assert answer.stats.generated_tokens == len(answer.ids) == len("Hello, 世界!".encode()) + 1


def test_no_event_splits_a_character() -> None:
    _, events = ask(ScriptedModel(), "a世b界")
    assert [event.text for event in events[:-1]] == ["a", "世", "b", "界"]  # type: ignore[union-attr]


def test_thoughts_are_told_apart_and_trimmed() -> None:
    answer, events = ask(
        ScriptedModel(), "<think>\nfirst\n\nsecond\n</think>\n\nThe answer.\n", thinking=True
    )
    assert answer.thinking == texts(events, ThinkingText) == "first\n\nsecond"
    assert answer.text == texts(events, AnswerText) == "The answer.\n"


def test_a_prompt_that_ends_in_an_open_thought_begins_with_thoughts() -> None:
    model = ScriptedModel()
    model.will_say("hm\n</think>\n\nyes")
    ids = model.tokenizer.encode("x<think>\n", allow_special=True)
    answer = Answer(model.chat, ids, options())
    for _ in answer:
        pass
    assert (answer.thinking, answer.text) == ("hm", "yes")


def test_written_marks_are_text() -> None:
    model = ScriptedModel()
    model.engine.script = model.tokenizer.encode("say <think> and </think>")
    ids = encode_messages(model.chat, [Message("user", "q")], False)
    answer = Answer(model.chat, ids, options())
    for _ in answer:
        pass
    assert answer.text == "say <think> and </think>"
    assert answer.thinking == ""


def test_marks_stay_text_where_thoughts_are_not_split() -> None:
    answer, _ = ask(ScriptedModel(), "<think>\na\n</think>\n\nb", split_thinking=False)
    assert answer.text == "<think>\na\n</think>\n\nb"


def test_an_unfinished_thought_is_no_answer() -> None:
    answer, _ = ask(ScriptedModel(), "<think>\nand so on", thinking=True, max_tokens=8)
    assert (answer.thinking, answer.text) == ("and so", "")
    assert answer.stats.finish_reason == "length"


def test_the_thinking_budget_ends_the_thoughts_and_the_answer_follows() -> None:
    model = ScriptedModel()
    model.will_say("<think>\nabc")
    ids = encode_messages(model.chat, [Message("user", "q")], True)
    answer = Answer(model.chat, ids, options(thinking=True, thinking_budget=5))
    events = []
    for event in answer:
        events.append(event)
        if event == ThinkingText("c"):
            model.engine.script = model.tokenizer.encode("done")
    assert (answer.thinking, answer.text) == ("abc", "done")
    assert model.tokenizer.decode(answer.ids).endswith("</think>\n\ndone<|im_end|>")
    assert model.engine.cached_ids() == answer.prompt_ids + answer.ids[:-1]
    assert answer.stats.finish_reason == "stop"
    assert isinstance(events[-1], Done)


def test_a_budget_that_leaves_no_tokens_for_an_answer_ends_with_length() -> None:
    answer, _ = ask(
        ScriptedModel(), "<think>\nabcdef", thinking=True, thinking_budget=5, max_tokens=6
    )
    assert answer.stats.finish_reason == "length"
    assert len(answer.ids) == 5


@pytest.mark.parametrize(
    ("stop", "text"), [("END", "one "), ("e E", "on"), ("世界", "one END "), ("none", None)]
)
def test_stop_strings_span_tokens(stop: str, text: str | None) -> None:
    said = "one END 世界 two"
    answer, events = ask(ScriptedModel(), said, stop=(stop,))
    assert answer.text == texts(events, AnswerText) == (said if text is None else text)
    assert answer.stats.finish_reason == "stop"


def test_stop_strings_do_not_end_thoughts() -> None:
    answer, _ = ask(ScriptedModel(), "<think>\nSTOP\n</think>\n\na STOP b", stop=("STOP",))
    assert (answer.thinking, answer.text) == ("STOP", "a ")


@given(
    st.lists(st.text(alphabet="abX", max_size=4), max_size=12),
    st.lists(st.text(alphabet="abX", min_size=1, max_size=4), max_size=3),
)
def test_stop_finder_equals_a_search_in_the_whole_text(pieces: list[str], stops: list[str]) -> None:
    finder = StopFinder(stops)
    passed = "".join(finder.push(piece) for piece in pieces) + finder.finish()
    whole = "".join(pieces)
    places = [whole.find(stop) for stop in stops if stop in whole]
    # The text may end at the first stop string or, where two overlap, at the one complete first.
    if not places:
        assert passed == whole
        assert not finder.found
    else:
        assert finder.found
        assert whole.startswith(passed)
        assert any(whole[len(passed) :].startswith(stop) for stop in stops)
        assert not any(stop in passed for stop in stops)


def test_logprobs_come_with_every_token() -> None:
    answer, _ = ask(ScriptedModel(), "ab", logprobs=2)
    assert [step.id for step in answer.steps] == answer.ids
    for step in answer.steps:
        assert step.logprob == pytest.approx(0.0, abs=1e-6)
        assert step.top[0] == (step.id, step.logprob)
        assert len(step.top) == 2


def test_an_interrupt_between_tokens_leaves_text_and_cache_usable() -> None:
    presses = iter([False] * 8 + [True])

    def poll() -> None:
        if next(presses, False):
            raise KeyboardInterrupt

    model = ScriptedModel(poll=poll)
    model.will_say("abcdefghijkl")
    ids = encode_messages(model.chat, [Message("user", "q")], False)
    answer = Answer(model.chat, ids, options())
    with pytest.raises(KeyboardInterrupt):
        list(answer)
    assert "abcdefghijkl".startswith(answer.text)
    assert answer.text
    assert answer.stats.finish_reason == "interrupted"
    model.will_say("again")
    again = Answer(model.chat, ids, options())
    list(again)
    assert again.text == "again"
    assert again.stats.cached_tokens == len(ids) - 1


def test_running_out_of_memory_keeps_the_text_so_far() -> None:
    model = ScriptedModel()
    model.will_say("abcdefgh")
    ids = encode_messages(model.chat, [Message("user", "q")], False)
    model.engine.out_of_memory_at = len(ids) + 3
    answer = Answer(model.chat, ids, options())
    with pytest.raises(MemoryLimitError):
        list(answer)
    assert answer.text == "abcd"
    assert answer.stats.finish_reason == "memory"


def test_held_back_text_can_be_fetched_after_an_interrupt() -> None:
    model = ScriptedModel()
    model.will_say("one EN")
    ids = encode_messages(model.chat, [Message("user", "q")], False)
    model.engine.out_of_memory_at = len(ids) + 5
    answer = Answer(model.chat, ids, options(stop=("END",)))
    with pytest.raises(MemoryLimitError):
        list(answer)
    assert answer.text == "one "
    assert answer.rest() == [AnswerText("EN")]
    assert answer.text == "one EN"
    assert answer.rest() == []


def test_prefill_is_reported_to_its_end() -> None:
    model = ScriptedModel()
    model.will_say("x")
    ids = encode_messages(model.chat, [Message("user", "q" * 200)], False)
    seen: list[tuple[int, int]] = []
    list(Answer(model.chat, ids, options(), lambda done, total: seen.append((done, total))))
    assert seen[-1] == (len(ids), len(ids))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 2


def chat(conversation: Conversation, model: ScriptedModel, say: str, reply: str) -> Answer:
    model.will_say(reply)
    answer, _ = conversation.ask(say, options())
    list(answer)
    conversation.keep(say, answer.text)
    return answer


def test_a_conversation_computes_new_tokens_only() -> None:
    model = ScriptedModel()
    conversation = Conversation(model.chat, system="Be brief.")
    chat(conversation, model, "one?", "1")
    before = model.engine.computed
    second = chat(conversation, model, "two?", "2")
    assert second.text == "2"
    assert second.stats.cached_tokens > 30
    computed = model.engine.computed - before
    assert computed == second.stats.prompt_tokens - second.stats.cached_tokens + 1
    assert conversation.messages == [
        Message("user", "one?"),
        Message("assistant", "1"),
        Message("user", "two?"),
        Message("assistant", "2"),
    ]


def test_a_turn_without_an_answer_is_left_out() -> None:
    conversation = Conversation(ScriptedModel().chat)
    conversation.keep("question", "")
    assert conversation.messages == []


def prompt_text(model: ScriptedModel, answer: Answer) -> str:
    return model.tokenizer.decode(answer.prompt_ids)


def test_a_full_context_drops_the_oldest_turns_and_keeps_the_system_message() -> None:
    model = ScriptedModel(context=512)
    conversation = Conversation(model.chat, system="Be kind.")
    dropped = 0
    for turn in range(12):
        model.will_say(f"reply {turn} " + "x" * 30)
        answer, lost = conversation.ask(f"question {turn}", options())
        dropped += lost
        list(answer)
        conversation.keep(f"question {turn}", answer.text)
        seen = prompt_text(model, answer)
        assert len(answer.prompt_ids) < 512
        assert seen.startswith("<|im_start|>system\nBe kind.")
        assert f"question {turn}<|im_end|>" in seen
    assert dropped > 0
    assert dropped % 2 == 0
    assert "question 0<" not in seen
    assert len(conversation.messages) == 24, "the whole conversation is kept for saving"


def test_dropping_makes_room_for_several_turns() -> None:
    model = ScriptedModel(context=512)
    conversation = Conversation(model.chat)
    drops = []
    for turn in range(20):
        model.will_say("reply " + "x" * 20)
        answer, lost = conversation.ask(f"question {turn}", options())
        list(answer)
        conversation.keep(f"question {turn}", answer.text)
        drops.append(lost > 0)
    assert any(drops)
    assert not any(first and second for first, second in itertools.pairwise(drops))


def test_a_message_longer_than_the_context_is_refused_and_the_chat_goes_on() -> None:
    model = ScriptedModel(context=256)
    conversation = Conversation(model.chat)
    chat(conversation, model, "hello", "hi")
    with pytest.raises(UsageError, match="context holds 256"):
        conversation.ask("x" * 300, options())
    assert len(conversation.messages) == 2
    answer = chat(conversation, model, "still there?", "yes")
    assert answer.text == "yes"
    assert "hello" in prompt_text(model, answer)


def test_clear_forgets_the_messages_but_not_the_system_message() -> None:
    model = ScriptedModel()
    conversation = Conversation(model.chat, system="Be kind.")
    chat(conversation, model, "hello", "hi")
    conversation.clear()
    answer = chat(conversation, model, "new", "ok")
    assert "hello" not in prompt_text(model, answer)
    assert "Be kind." in prompt_text(model, answer)


def test_control_tokens_in_messages_stay_text() -> None:
    model = ScriptedModel()
    ids = encode_messages(model.chat, [Message("user", "<|im_end|><think>")], True)
    special = model.tokenizer.special_ids()
    assert ids.count(special["<|im_end|>"]) == 1
    assert special["<think>"] not in ids
