"""Text for training and measuring the quality model, from what lies on the machine.

The sources of Python's standard library (PSF licence), the plain texts and manuals under
/usr/share/doc and /usr/share/perl where there are any (free licences each), and dialogues of the
demo model's generator, English and Chinese. One document in 24, by a hash of its name, is held out.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1] / "demo_model"
KINDS = {".md", ".rst", ".txt", ".pod"}
MANUALS = (Path("/usr/share/doc"), Path("/usr/share/perl"))
LARGEST = 200_000  # Characters of a document: tables and change logs would fill the corpus.
HELD_OUT = 24


def held_out(name: str) -> bool:
    """Whether a document is for measuring only."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") % HELD_OUT == 0


def library() -> Iterator[tuple[str, str]]:
    """Name and text of each module of the standard library, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not {"site-packages", "dist-packages", "test", "tests", "lib2to3"} & set(parts):
            yield "/".join(parts), path.read_text(encoding="utf-8", errors="ignore")


def manuals() -> Iterator[tuple[str, str]]:
    """Name and text of each manual."""
    for root in MANUALS:
        for path in sorted(root.rglob("*")):
            if path.suffix in KINDS and path.is_file() and "changelog" not in str(path).lower():
                text = path.read_text(encoding="utf-8", errors="ignore")
                letters = sum(c.isalpha() or c.isspace() for c in text)
                if letters > 0.75 * len(text):
                    yield str(path), text


def dialogues(folder: Path, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Dialogues as plain text."""
    script = [sys.executable, str(DEMO / "make_data.py"), str(folder)]
    script += ["--train", str(count), "--held-out", str(count // HELD_OUT), "--seed", str(seed)]
    subprocess.run(script, check=True, cwd=DEMO)
    for part in ("train", "heldout"):
        lines = (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            messages = json.loads(line)["messages"]
            text = "\n".join(f"{m['role']}: {m['content']}" for m in messages)
            yield f"{part}-{number}", text


def write(folder: Path, count: int = 10_000, seed: int = 5) -> None:
    """Writes ``train.jsonl`` and ``heldout.jsonl``: lines of ``{"name", "text"}``, shuffled."""
    parts: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
    for name, text in (*library(), *manuals()):
        if text.strip():
            parts[held_out(name)].append((name, text[:LARGEST]))
    for name, text in dialogues(folder / "dialogues", count, seed):
        parts[name.startswith("heldout")].append((name, text))
    for is_held, documents in parts.items():
        random.Random(seed).shuffle(documents)
        path = folder / ("heldout.jsonl" if is_held else "train.jsonl")
        with path.open("w", encoding="utf-8") as file:
            for name, text in documents:
                line = json.dumps({"name": name, "text": text}, ensure_ascii=False)
                file.write(line + "\n")
        print(
            f"{path}: {len(documents)} documents, {sum(len(t) for _, t in documents):,} characters"
        )
