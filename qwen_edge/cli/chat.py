"""``qwen-edge chat``: talk with a model, turn by turn."""

from __future__ import annotations

from qwen_edge.cli.answer_view import (
    AnswerView,
    GovernorView,
    PrefillProgress,
    explain_cut,
    introduce,
    show_governor,
    show_stats,
    stoppable,
    tell_of_prompt_file,
)
from qwen_edge.cli.awake import Working, awake
from qwen_edge.cli.chat_help import COMMANDS, show_help
from qwen_edge.cli.chat_lora import set_lora
from qwen_edge.cli.interrupts import StopRequest, uninterrupted
from qwen_edge.cli.line_input import LineInput
from qwen_edge.cli.model_options import MODEL_OPTIONS, PROMPT_FILE, flags_of, prompt_file
from qwen_edge.cli.move_model import plan_for
from qwen_edge.cli.options import Option, Values
from qwen_edge.cli.setup_view import SetupView
from qwen_edge.cli.terminal import err, note, show_error, warn
from qwen_edge.cli.voice import LISTEN, SPEAK, Voice, copy_answer, listen, speaking
from qwen_edge.engine.stats import GenerationStats
from qwen_edge.errors import DeviceLimitError, MemoryLimitError, QwenEdgeError
from qwen_edge.host.paths import data_folder
from qwen_edge.session.conversation import Conversation
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session.store import SavedConversation, last_conversation, new_path, save

OPTIONS = (
    *MODEL_OPTIONS,
    PROMPT_FILE,
    SPEAK,
    LISTEN,
    Option("system", ("-s", "--system"), "How the model should behave.", "TEXT"),
    Option("resume", ("-r", "--resume"), "Continue the last conversation."),
    Option("stats", ("--stats",), "Write speed and memory after each answer."),
)
_PROMPT = "> "
_INTERRUPTED = 130


def main(values: Values) -> int:
    """Talks until the user leaves; returns the exit code."""
    saved = last_conversation() if values.switch("resume") else None
    file = prompt_file(values)
    plan, governor = plan_for(flags_of(values)), GovernorView()
    with (
        awake(plan.settings.get("wake-lock")) as working,
        speaking(values.switch("speak"), to_the_end=False) as voice,
        LoadedModel(
            plan, file, keep_all=True, watcher=SetupView(), tell=governor, turns=True
        ) as loaded,
    ):
        introduce(loaded.plan)
        if values.switch("resume") and saved is None:
            note("There is no saved conversation; this is a new one.")
        chat = Chat(
            loaded,
            governor,
            values.text("system"),
            saved,
            working,
            show_stats=values.switch("stats"),
        )
        chat.voice, chat.listens = voice, values.switch("listen")
        code = chat.talk()
    tell_of_prompt_file(loaded)
    return code


class Chat:
    """One chat at the terminal, or over pipes: a line a turn then, without prompts.

    Args:
        loaded: the model.
        governor: tells what the model's governor does.
        system: how it should behave; None takes it from the saved conversation.
        saved: a conversation to go on with.
        working: makes the context manager of each answer.
        show_stats: whether each answer is followed by its statistics.

    Attributes:
        voice: speaks the answers.
        listens: whether an empty line is a request to listen.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        governor: GovernorView,
        system: str | None,
        saved: SavedConversation | None,
        working: Working,
        *,
        show_stats: bool,
    ) -> None:
        self._loaded = loaded
        self.voice: Voice | None = None
        self.listens = False
        self._working = working
        self._governor = governor
        self._input = LineInput(data_folder() / "history", tuple(COMMANDS))
        self._stop = StopRequest()
        self._model = stoppable(loaded.chat, self._stop)
        self._options = loaded.answer_options()
        self._path = saved.path if saved else new_path()
        if system is None:
            system = saved.system if saved else ""
        self._conversation = Conversation(self._model, system, saved.messages if saved else ())
        self._always_stats = show_stats
        self._last: GenerationStats | None = None
        self._last_text = ""
        self._failure: QwenEdgeError | None = None
        self._resumed = saved is not None

    def talk(self) -> int:
        """Takes turn after turn.

        Returns:
            0, 130 after Ctrl-C twice, 4 when memory ran out, 7 when the device could not go on;
            over pipes the code of the last turn that failed.
        """
        self._greet()
        interrupts = 0
        while True:
            try:
                text = self._input.read(_PROMPT)
            except KeyboardInterrupt:
                err("")
                if self.voice is not None and self.voice.hush():
                    continue
                interrupts += 1
                if interrupts > 1:
                    return _INTERRUPTED
                note("Ctrl-C once more leaves; so does Ctrl-D.")
                continue
            if text is None or text.strip() in ("/exit", "/quit"):
                break
            interrupts = 0
            text = self._heard(text)
            if text.strip() and not self._run_command(text.strip()):
                try:
                    interrupts = int(self._turn(text))
                except (MemoryLimitError, DeviceLimitError) as error:
                    return self._at_its_limit(error)
            self._input.remember()
        if self._input.interactive and text is None:
            err("")
        return self._failure.exit_code if self._failure and not self._input.interactive else 0

    def _at_its_limit(self, error: QwenEdgeError) -> int:
        show_error(error)
        if self._conversation.messages:
            note("The conversation is saved; `qwen-edge chat --resume` goes on with it.")
        return error.exit_code

    def _greet(self) -> None:
        if not self._input.interactive:
            return
        note(
            "{model}, context {context} tokens. /help lists commands, Ctrl-D leaves.",
            model=self._loaded.plan.model.name,
            context=self._loaded.engine.config.context,
        )
        if self._resumed:
            turns = len(self._conversation.messages) // 2
            note("The last conversation goes on, {turns} turns so far.", turns=turns)

    def _heard(self, line: str) -> str:
        """What the user says where a line asks to listen, empty if nothing; else the line."""
        if line.strip() != "/listen" and not (self.listens and not line.strip()):
            return line
        if self.voice is not None:
            self.voice.hush()
        try:
            return listen()
        except QwenEdgeError as error:
            if not self._input.interactive:
                self._failure = error
            show_error(error)
        except KeyboardInterrupt:
            err("")
        return ""

    def _turn(self, question: str) -> bool:
        """Answers one message; returns whether Ctrl-C stopped the answer."""
        if self.voice is not None:
            self.voice.hush()
        progress, view = PrefillProgress(), AnswerView(thoughts=True)
        self._governor.answer, self._governor.progress = view, progress
        governing = self._loaded.governing
        began = governing.seconds if governing else 0.0
        with self._working(), self._stop:
            try:
                options = self._loaded.governed(self._options)
                answer, dropped = self._conversation.ask(question, options, progress)
            except (MemoryLimitError, DeviceLimitError):
                raise
            except QwenEdgeError as error:
                self._failure = error
                show_error(error)
                return False
            if dropped:
                note(
                    "The context is full: the oldest {count} messages are left out.", count=dropped
                )
            interrupted = False
            try:
                for event in answer:
                    view.show(event)
                    if self.voice is not None:
                        self.voice.hear(event)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                with uninterrupted():
                    rest = answer.rest()
                    # Before anything is shown: the terminal may be gone.
                    self._keep(question, answer.text)
                    progress.clear()
                    for event in rest:
                        view.show(event)
                    view.finish()
        self._last, self._last_text = answer.stats, answer.text
        self._settle_voice(interrupted=interrupted)
        if interrupted:
            note("Stopped. Ctrl-C once more leaves.")
        elif self._always_stats:
            show_stats(self._last)
            show_governor(governing, began)
        spared = options.max_tokens < self._options.max_tokens
        explain_cut(self._last, self._loaded.engine.config.context, spared=spared)
        return interrupted

    def _settle_voice(self, *, interrupted: bool) -> None:
        """At a terminal the speaking goes on beside the next message; over pipes it is awaited."""
        if self.voice is None:
            return
        if interrupted:
            self.voice.hush()
        elif not self._input.interactive:
            self.voice.wait()
        self.voice.tell()

    def _keep(self, question: str, answer: str) -> None:
        if not answer:
            return
        self._conversation.keep(question, answer)
        try:
            save(
                self._path,
                self._loaded.plan.model.name,
                self._conversation.system,
                self._conversation.messages,
            )
        except QwenEdgeError as error:
            warn(error.sentence, **error.values)

    def _run_command(self, text: str) -> bool:
        """Carries out a slash command; returns False if the text is none."""
        name, _, argument = text.partition(" ")
        if name not in COMMANDS:
            if not (name == text and name.startswith("/") and name[1:].isalpha()):
                return False
            note("There is no command {name}; /help lists them.", name=name)
        elif name == "/help":
            show_help()
        elif name == "/think":
            self._set_thinking(argument.strip())
        elif name == "/lora":
            set_lora(self._loaded, argument.strip(), again=bool(self._conversation.messages))
        elif name == "/copy":
            if self._last_text:
                copy_answer(self._last_text)
            else:
                note("There was no answer yet.")
        elif name == "/clear":
            self._conversation.clear()
            self._path = new_path()
            note("A new conversation.")
        elif self._last is not None:
            show_stats(self._last)
            show_governor(self._loaded.governing)
        else:
            note("There was no answer yet.")
        return True

    def _set_thinking(self, argument: str) -> None:
        wanted = {"on": True, "off": False, "": not self._options.thinking}.get(argument)
        if wanted is None:
            note("Write /think on or /think off.")
            return
        self._options = self._loaded.answer_options(wanted)
        if wanted and not self._options.thinking:
            note("This model does not think before it answers.")
        else:
            note("Thinking is on." if wanted else "Thinking is off.")
