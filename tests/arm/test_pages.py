"""What readers are told to install is what the check of everything installs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def packages(text: str) -> list[str]:
    """The system packages in the first command that installs some."""
    joined = text.replace("\\\n", "")
    found = re.search(r"apt-get install -y (.+?)(?: && |\n[^ ])", joined, re.DOTALL)
    assert found
    return [word for word in found[1].split() if not word.startswith("-")]


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_pages_name_the_packages_that_are_installed(page: str) -> None:
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    told = packages(text[text.index("libsimde-dev") - 300 :])
    assert told == packages((CHECKOUT / ".ci" / "run").read_text(encoding="utf-8"))
    assert "debootstrap" in told
