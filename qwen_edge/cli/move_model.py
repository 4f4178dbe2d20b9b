"""Bringing a model where it is fast: the offer before an answer, and ``qwen-edge models move``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_edge.cli.language import localized
from qwen_edge.cli.terminal import err, is_terminal, note, show_error, warn, width
from qwen_edge.cli.text_cells import wrapped
from qwen_edge.errors import QwenEdgeError
from qwen_edge.session.plan import Plan, make_plan

if TYPE_CHECKING:
    from qwen_edge.session.moving import Original

_YES = ("y", "yes", "是", "好")


def plan_for(flags: Mapping[str, object]) -> Plan:
    """Makes a plan; raises as ``make_plan`` does.

    Where the model lies on shared storage, the user is warned, and asked once whether to copy it to
    where it is fast; the plan is then for the copy.
    """
    plan = make_plan(flags)
    if not plan.shared_storage:
        return plan
    warn_of_storage(plan)
    copy = _offered(plan)
    if copy is None:
        return plan
    plan.model.close()
    return make_plan({**flags, "model": str(copy)})


def warn_of_storage(plan: Plan) -> None:
    """Warns of a model that lies where it is slow, and names the command that helps."""
    if not plan.shared_storage:
        return
    warn(
        "{path} lies on shared storage, where it runs at a small part of its speed.",
        path=plan.found.path,
    )
    import shlex

    from qwen_edge.session.moving import may_be_offered

    # At a terminal it is asked instead.
    if not _interactive() and may_be_offered(plan.found.path):
        command = f"qwen-edge models move {shlex.quote(str(plan.found.path.absolute()))}"
        note("`{command}` brings it where it is fast.", command=command)


def _offered(plan: Plan) -> Path | None:
    """Asks, unless the answer is known, and copies; where the copy is, or None."""
    if not _interactive():
        return None
    from qwen_edge.host.paths import models_folder
    from qwen_edge.host.sizes import format_size
    from qwen_edge.host.storage import free_bytes
    from qwen_edge.session.moving import copied_to, let_stay, may_be_offered

    path, folder = plan.found.path, models_folder()
    if not may_be_offered(path):
        return None
    answer = confirmed(
        "Copy it ({size}) to {folder} ({free} free)?",
        size=format_size(path.stat().st_size),
        folder=folder,
        free=format_size(free_bytes(folder) or 0),
    )
    if answer is None:
        return None
    if not answer:
        let_stay(path)
        note("It stays; `qwen-edge models move` copies it at any time.")
        return None
    try:
        copy = copied_to(path)
        original = copy_with_progress(path, copy)
        delete_original(original, copy)
    except QwenEdgeError as error:
        # It still answers from where it is.
        show_error(error)
        return None
    named = plan.settings.values.get("model")
    if named is not None and named.source == "file":
        note("`qwen-edge config set model {name}` makes it the usual one.", name=copy.stem)
    return copy


def copy_with_progress(source: Path, target: Path) -> Original:
    """Copies a model, keeping the phone awake; raises as ``copy_model`` does."""
    from qwen_edge.cli.awake import staying_awake
    from qwen_edge.cli.file_progress import file_progress
    from qwen_edge.session.moving import copy_model

    with staying_awake(), file_progress("Copying") as progress:
        return copy_model(source, target, progress)


def delete_original(original: Original, copy: Path, *, yes: bool = False) -> None:
    """Deletes what was copied if the user agrees; raises as ``remove_original`` does."""
    from qwen_edge.session.moving import remove_original

    note("The model is now {path}.", path=copy)
    if not yes and not (_interactive() and confirmed("Delete {path}?", path=original.path)):
        note("{path} is still there.", path=original.path)
        return
    remove_original(original)
    note("{name} is deleted.", name=original.path)


def _interactive() -> bool:
    """Whether somebody can answer; a script that takes the output must not wait for that."""
    return all(map(is_terminal, (sys.stdin, sys.stdout, sys.stderr)))


def confirmed(template: str, **values: object) -> bool | None:
    """Asks at the terminal; None where the input ends."""
    *lines, last = wrapped(localized(template, values) + " [y/N]", width() - 2)
    for line in lines:
        err(line)
    err(last + " ", end="")
    answer = sys.stdin.buffer.readline()
    if not answer:
        err("")
        return None
    return answer.decode("utf-8", "replace").strip().lower() in _YES
