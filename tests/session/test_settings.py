from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.errors import UsageError
from qwen_edge.session.config_file import change_file, read_file
from qwen_edge.session.profile import DeviceProfile
from qwen_edge.session.select import RuntimeConfig, Wishes, select
from qwen_edge.session.setting_table import FIXED_DEFAULTS, SETTINGS, parse_value, setting
from qwen_edge.session.settings import Settings, unknown_variables
from tests.session.facts import GIB, SMALL, tiny

PHONE = DeviceProfile(int(3.6 * GIB), int(1.4 * GIB), GIB, 8, 2, 6, "neon", True)
# For each setting a value in range, one out of it, and one that is not of its kind.
EXAMPLES = {
    "model": ("Qwen3-0.6B", "  ", "a\x00b"),
    "engine": ("auto", "onnx", "1"),
    "compile": ("off", "never", "1"),
    "weights": ("nf4", "q4", "4"),
    "double-quant": ("on", "2", "none"),
    "context": ("4096", "63", "many"),
    "lora": ("adapters/mine", "  ", "a\x00b"),
    "lora-scale": ("-0.5", "101", "much"),
    "kv": ("int8", "int3", "8"),
    "kv-cache": ("off", "2", "none"),
    "max-tokens": ("1", "0", "1.5"),
    "thinking": ("off", "2", "maybe"),
    "temperature": ("0", "5.1", "nan"),
    "top-p": ("1", "0", "high"),
    "top-k": ("0", "-1", "0.5"),
    "min-p": ("0.05", "1.01", ""),
    "repetition-penalty": ("1.1", "0", "inf"),
    "presence-penalty": ("-2", "2.1", "x"),
    "seed": ("9223372036854775807", "9223372036854775808", "none"),
    "threads": ("256", "257", "all"),
    "prefill-threads": ("1", "0", "1 2"),
    "cpus": ("0-3,6", "3-", "fast"),
    "lookup": ("off", "on", "3"),
    "memory-cap": ("off", "0", "much"),
    "reserve": ("0", "-5", "1QB"),
    "governor": ("cool", "on", "1"),
    "fallback": ("article", "auto", "128"),
    "prompt-cache-size": ("off", "-1", "much"),
    "wake-lock": ("off", "on", "always"),
}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_examples_cover_every_setting() -> None:
    assert set(EXAMPLES) == set(SETTINGS)
    for known in SETTINGS.values():
        assert known.help.endswith(".")
        assert known.field or known.key in FIXED_DEFAULTS


@pytest.mark.parametrize("key", SETTINGS)
def test_range_of_every_setting(key: str) -> None:
    good, *bad = EXAMPLES[key]
    parse_value(setting(key), good, "test")
    for text in bad:
        with pytest.raises(UsageError) as caught:
            parse_value(setting(key), text, "somewhere")
        assert key in str(caught.value)
        assert "somewhere" in str(caught.value)
        assert caught.value.values["allowed"] == setting(key).allowed


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_from_every_source(key: str, tmp_path: Path) -> None:
    good = EXAMPLES[key][0]
    path = tmp_path / "config.toml"
    change_file(path, key, good)
    known = setting(key)
    expected = known.parse(good)
    for flags, environ, source, detail in (
        ({}, {}, "file", str(path)),
        ({}, {known.variable: good}, "environment", known.variable),
        ({key: good}, {known.variable: good}, "flag", f"--{key}"),
    ):
        found = Settings.load(flags, environ, path)
        assert found.values[key] == (expected, source, detail)
        assert found.get(key) == expected
    if expected is not None:
        # A command hands parsed values on to other processes of the program.
        assert Settings.load({key: expected}, {}, path).get(key) == expected
    path.unlink()
    assert Settings.load({}, {}, path).values == {}
    assert Settings.load({key: None}, {known.variable: ""}, path).values == {}


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", "context = 1000\ntop_p = 0.5\nseed = 3\n")
    environ = {"QWEN_EDGE_CONTEXT": "2000", "QWEN_EDGE_TOP_P": "0.6"}
    found = Settings.load({"context": 3000}, environ, path)
    assert [found.get(key) for key in ("context", "top-p", "seed")] == [3000, 0.6, 3]
    assert [found.values[key].source for key in ("context", "top-p", "seed")] == [
        "flag",
        "environment",
        "file",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("contxt = 1", r"no setting contxt"),
        ("context = 'x'", r"'x' is no value for context .*c\.toml"),
        ("context = 1.5", r"'1.5' is no value for context"),
        ("context = true", r"no value for context"),
        ("[context]\na = 1", r"context in .* is not a plain value"),
        ("model = ['a']", r"model in .* is not a plain value"),
        ("context = ", r"c\.toml cannot be read"),
        ("context = 1\ncontext = 2", r"cannot be read"),
        ("a = " + "[" * 5000, r"cannot be read"),
    ],
)
def test_bad_files_are_usage_errors(tmp_path: Path, text: str, complaint: str) -> None:
    path = write(tmp_path / "c.toml", text)
    with pytest.raises(UsageError, match=complaint) as caught:
        Settings.load({}, {}, path)
    assert caught.value.exit_code == 2


def test_unreadable_files_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"model = '\xff'")
    for path in (tmp_path, tmp_path / "c.toml"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_file(path)


def test_unknown_setting_has_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        setting("contxt")
    assert caught.value.values["near"] == "context"
    with pytest.raises(UsageError) as far:
        setting("zzz")
    assert "temperature" in str(far.value.values["known"])


def test_wishes_carry_over(tmp_path: Path) -> None:
    flags = {"kv": "f16", "thinking": False, "memory-cap": "1GiB", "reserve": "10MiB", "seed": 7}
    found = Settings.load(flags, {}, tmp_path / "none").wishes()
    assert found == Wishes(kv_type="f16", thinking=False, memory_cap=GIB, reserve=10 << 20)
    for cap in ("auto", "off"):
        assert Settings.load({"memory-cap": cap}, {}, tmp_path / "none").wishes() == Wishes()


def explained(found: Settings, config: RuntimeConfig) -> dict[str, tuple[str, str]]:
    return {line.key: (line.value, line.origin) for line in found.explain(config)}


def test_explain_says_where_each_value_comes_from(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", "threads = 1\n")
    found = Settings.load({"context": 1024}, {"QWEN_EDGE_SEED": "5"}, path)
    config = select(PHONE, [SMALL], found.wishes())
    lines = explained(found, config)
    assert set(lines) == set(SETTINGS)
    assert lines["context"] == ("1024", "flag --context")
    assert lines["seed"] == ("5", "environment QWEN_EDGE_SEED")
    assert lines["threads"] == ("1", f"file {path}")
    assert lines["kv"] == ("int8", "adaptive default")
    assert lines["memory-cap"] == ("auto", "default")
    assert lines["thinking"] == ("off", "adaptive default")
    assert lines["reserve"][0].endswith("MiB")
    empty = Settings.load({}, {}, tmp_path / "none")
    lines = explained(empty, config)
    assert lines["seed"] == ("random", "default")


def test_explain_shows_what_holds_where_a_wish_cannot_be(tmp_path: Path) -> None:
    found = Settings.load({"thinking": True}, {}, tmp_path / "none")
    config = select(PHONE, [tiny()], found.wishes())
    line = next(line for line in found.explain(config) if line.key == "thinking")
    assert line == ("thinking", "off", "flag --thinking")


def test_change_keeps_comments_and_other_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", "# mine\ntop_p = 0.5 # half\n\nseed = 3\n")
    change_file(path, "top-p", "0.9")
    assert path.read_text() == "# mine\n\nseed = 3\ntop-p = 0.9\n"
    change_file(path, "memory_cap", "1 GiB")
    change_file(path, "seed", None)
    assert path.read_text() == '# mine\n\ntop-p = 0.9\nmemory-cap = "1 GiB"\n'
    assert [file.name for file in tmp_path.iterdir()] == ["c.toml"]


def test_change_of_an_unusual_file_keeps_the_values(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", 'model = """a\nseed = 1\n"""\nseed = 2\n')
    with pytest.raises(UsageError):
        change_file(path, "nonsense", "1")
    with pytest.raises(UsageError):
        change_file(path, "seed", "x")
    assert read_file(path) == {"model": "a\nseed = 1\n", "seed": 2}
    path.write_text("\"seed\" = 2\nmodel = '''x'''\n")
    change_file(path, "seed", "5")
    assert read_file(path) == {"seed": 5, "model": "x"}


def test_change_makes_the_folder_and_reports_failure(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "config.toml"
    change_file(path, "seed", "1")
    assert path.read_text() == "seed = 1\n"
    with pytest.raises(UsageError, match="cannot be written"):
        change_file(Path("/proc/qwen-edge/config.toml"), "seed", "1")
    with pytest.raises(UsageError, match="cannot be read"):
        change_file(path / "below" / "config.toml", "seed", "1")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40))
def test_any_text_survives_the_file(text: str) -> None:
    import tempfile

    if not text.strip():
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.toml"
        change_file(path, "model", text)
        assert tomllib.loads(path.read_text(encoding="utf-8"))["model"] == text.strip()


def test_unknown_variables_are_listed() -> None:
    environ = {"QWEN_EDGE_CONTXT": "1", "QWEN_EDGE_CONTEXT": "1", "QWEN_EDGE_HOME": "/x", "A": "b"}
    assert unknown_variables(environ) == ["QWEN_EDGE_CONTXT"]


def test_tomllib_is_imported_only_for_a_file(tmp_path: Path) -> None:
    script = (
        "import sys; from qwen_edge.session.settings import Settings\n"
        f"Settings.load({{}}, {{'QWEN_EDGE_HOME': {str(tmp_path)!r}}})\n"
        "print(sorted({'tomllib', 'numpy', 'torch', 'psutil', 'jinja2'} & set(sys.modules)))\n"
    )
    run = [sys.executable, "-c", script]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "[]\n"
    write(tmp_path / "config.toml", "seed = 1\n")
    found = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert found == "['tomllib']\n"
