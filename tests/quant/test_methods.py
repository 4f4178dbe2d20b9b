"""The calibration text and the choice of methods."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_edge.errors import UsageError
from qwen_edge.quant.methods import calibration_text, read_calibration


def test_the_text_that_comes_with_the_package() -> None:
    text = calibration_text()
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in text)
    assert chinese > 500
    assert text.count("the ") > 50
    assert len(text.encode()) < 20_000


def test_texts_of_others(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("漢".encode() * 400_000)
    text = read_calibration(path)
    assert set(text) == {"漢"}
    assert len(text.encode()) <= 1 << 20
    path.write_bytes(b"good \xff bad")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_calibration(path)
    with pytest.raises(UsageError, match="No such file"):
        read_calibration(tmp_path / "none")
