from __future__ import annotations

import pytest

from qwen_edge.errors import ModelNotFoundError, UsageError
from qwen_edge.session.pull_names import Wanted, parse_wanted

HF, MS = "huggingface", "modelscope"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("qwen3-0.6b", Wanted(HF, "Qwen/Qwen3-0.6B")),
        ("0.6b", Wanted(HF, "Qwen/Qwen3-0.6B")),
        ("Qwen3-4B-Thinking-2507", Wanted(HF, "Qwen/Qwen3-4B-Thinking-2507")),
        ("a/b", Wanted(HF, "a/b")),
        ("a/b.c:Q8_0", Wanted(HF, "a/b.c", file="Q8_0")),
        ("a/b:sub/x.gguf", Wanted(HF, "a/b", file="sub/x.gguf")),
        ("https://huggingface.co/a/b", Wanted(HF, "a/b")),
        ("https://huggingface.co/a/b/", Wanted(HF, "a/b")),
        ("https://hf.co/a/b/tree/v1", Wanted(HF, "a/b", "v1")),
        ("https://huggingface.co/a/b/blob/v1/x.gguf", Wanted(HF, "a/b", "v1", "x.gguf")),
        (
            "https://huggingface.co/a/b/resolve/main/s/x.gguf?download=true",
            Wanted(HF, "a/b", "main", "s/x.gguf"),
        ),
        ("https://hf-mirror.com/a/b", Wanted(HF, "a/b", address="https://hf-mirror.com")),
        ("https://modelscope.cn/models/a/b", Wanted(MS, "a/b")),
        ("https://www.modelscope.cn/models/a/b/summary", Wanted(MS, "a/b")),
        (
            "https://modelscope.cn/models/a/b/file/view/master/x.gguf?status=2",
            Wanted(MS, "a/b", "master", "x.gguf"),
        ),
        (
            "https://example.com/d/My%2Dmodel.qedge?key=1",
            Wanted(
                "url",
                "example.com/My-model.qedge",
                url="https://example.com/d/My%2Dmodel.qedge?key=1",
            ),
        ),
    ],
)
def test_what_people_write(text: str, expected: Wanted) -> None:
    assert parse_wanted(text, {}) == expected


def test_a_mirror_that_is_set_stands_for_the_original() -> None:
    mirror = {"HF_ENDPOINT": "https://mirror.example"}
    assert parse_wanted("https://mirror.example/a/b", mirror) == Wanted(HF, "a/b")
    assert parse_wanted("https://huggingface.co/a/b", mirror) == Wanted(HF, "a/b")


def test_options_add_to_the_name() -> None:
    wanted = parse_wanted("a/b", {}, source=MS, revision="v1", file="x.gguf")
    assert wanted == Wanted(MS, "a/b", "v1", "x.gguf")
    assert (wanted.name, wanted.origin) == ("b", "a/b@v1")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a/b:x.gguf", {"file": "y.gguf"}),
        ("https://huggingface.co/a/b/tree/v1", {"revision": "v2"}),
        ("https://example.com/x.gguf", {"file": "y.gguf"}),
        ("https://example.com/x.gguf", {"source": HF}),
        ("a/b", {"source": "elsewhere"}),
        ("a/b", {"revision": "a/../b"}),
        ("a/b/c", {}),
        ("/etc/passwd", {}),
        ("a/..", {}),
        ("https://huggingface.co/a", {}),
        ("https://huggingface.co/a/b/discussions/1", {}),
        ("https://huggingface.co/../b/..", {}),
        ("https://example.com/%2e%2e%2fx.zip", {}),
        ("https://example.com/.gguf", {}),
        ("http://huggingface.co/a/b", {}),
        ("https://me:word@huggingface.co/a/b", {}),
    ],
)
def test_what_cannot_be_meant(text: str, options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        parse_wanted(text, {}, **options)


def test_unknown_short_names_get_near_ones() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        parse_wanted("qwen3-4b-instruct", {})
    assert "qwen3-4b-instruct-2507" in str(caught.value.values["near"])
