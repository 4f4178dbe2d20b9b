"""What a model is expected to take before it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_edge.errors import UsageError
from qwen_edge.host.https import Client
from qwen_edge.host.part_file import RemoteFile
from qwen_edge.model.convert import convert
from qwen_edge.session.pull_files import GGUF, Selection
from qwen_edge.session.pull_names import URL, Wanted
from qwen_edge.session.pull_offer import Offer

pytest.importorskip("gguf", reason="gguf is not installed")
from tests.model.gguf_files import write_gguf


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize(
    "kind",
    ["Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL",
     "IQ4_XS", "MXFP4", "F16", "BF16", "F32"],
)  # fmt: skip
def test_size_of_what_is_made_of_a_gguf(kind: str, bits: int | None, tmp_path: Path) -> None:
    path = tmp_path / f"model-{kind.lower()}_m.gguf"
    write_gguf(path, kind)
    made = convert(path, tmp_path / "m.qedge", bits=bits)
    file = RemoteFile(path.name, f"https://example.org/{path.name}", path.stat().st_size)
    client = Client(timeout=1.0)
    offer = Offer(
        Wanted(URL, file.url), Selection(GGUF, (file,)), client, lambda *_: UsageError("")
    )
    expected = offer.model_bytes(bits, 32)
    assert made.size < expected < 1.5 * made.size
