"""The kernel tables against the scalar one, bit for bit where integers are concerned.

kernel_test.cpp does the comparing; here it is built and run: natively, for AVX-512 and AVX2 under
emulation by SIMDe, and for three generations of Arm processors under qemu. The Debian packages that
this needs are g++, binutils, libsimde-dev, g++-aarch64-linux-gnu and qemu-user-static.
"""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from qwen_edge.native.build import FLAGS, SOURCE_DIR, find_compiler

HERE = Path(__file__).resolve().parent
KERNELS = sorted((SOURCE_DIR / "isa").glob("*.cpp"))
X86 = platform.machine() in ("x86_64", "AMD64")
OBJECT_FLAGS = [flag for flag in shlex.split(FLAGS) if flag != "-shared"]
# g++ and clang++ understand the target pragmas differently, so that each has to be right.
COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)] or ["c++"]


def run(command: list[str], *, cwd: Path | None = None) -> str:
    """Runs a command that has to succeed and returns what it printed."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    shown = f"{shlex.join(command[:4])} ...: exit code {result.returncode}"
    assert result.returncode == 0, f"{shown}\n{output[-6000:]}"
    return result.stdout


def need(program: str, package: str) -> str:
    """The path of a program, or a failure that says which package has it."""
    path = shutil.which(program)
    assert path, f"{program} is missing: install it with `apt install {package}`"
    return path


def compile_objects(compiler: str, directory: Path) -> list[Path]:
    """Compiles the kernels as the library does, and kernel_test; returns the kernels' objects."""
    run([compiler, *OBJECT_FLAGS, "-I", str(SOURCE_DIR), "-c", *map(str, KERNELS)], cwd=directory)
    test = str(HERE / "kernel_test.cpp")
    run([compiler, *OBJECT_FLAGS, "-O1", "-I", str(SOURCE_DIR), "-c", test], cwd=directory)
    return [directory / f"{source.stem}.o" for source in KERNELS]


def link(compiler: str, directory: Path, *flags: str) -> Path:
    """Links what compile_objects made."""
    program = directory / "kernel_test"
    objects = map(str, sorted(directory.glob("*.o")))
    run([compiler, "-pthread", *flags, "-o", str(program), *objects])
    return program


def tables(output: str) -> list[str]:
    """The names in the first line of kernel_test's report."""
    first = output.partition("\n")[0]
    assert first.startswith("tables:"), first
    return first.split()[1:]


def assert_all_passed(output: str) -> None:
    """The report has a last line without failures, and many checks for each table."""
    match = re.search(r"^(\d+) passed, 0 failed$", output, re.MULTILINE)
    assert match, output[-3000:]
    assert int(match[1]) >= 100 * len(tables(output))


def tables_of_this_processor() -> list[str]:
    """The tables that the flags in /proc/cpuinfo promise, on x86 and Arm."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(lines[0].split()) if lines else set()
    needs = {
        "avx2": {"avx2", "fma", "f16c"},
        "avx512_vnni": {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni"},
        "neon": {"asimd"},
        "neon_dotprod": {"asimd", "asimddp"},
        "neon_i8mm": {"asimd", "asimddp", "i8mm"},
    }
    return [name for name, wanted in needs.items() if wanted <= flags]


@pytest.fixture(scope="module", params=COMPILERS)
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kernels' objects and kernel_test for this machine."""
    compiler = request.param if shutil.which(request.param) else find_compiler()[0]
    directory = tmp_path_factory.mktemp("kernels")
    compile_objects(compiler, directory)
    link(compiler, directory)
    return directory


def test_every_table_of_this_processor(native: Path) -> None:
    output = run([str(native / "kernel_test")])
    assert tables(output) == tables_of_this_processor()
    assert_all_passed(output)


@pytest.mark.skipif(not X86, reason="VEX and EVEX are encodings of x86")
def test_wide_registers_stay_in_their_tables(native: Path) -> None:
    """Nothing that an old processor runs is encoded for AVX; the kernels have namespaces."""
    objdump = need("objdump", "binutils")
    objects = [str(native / f"{source.stem}.o") for source in KERNELS]
    own = strays = 0
    function, found = "", set()
    for line in run([objdump, "-d", "--no-show-raw-insn", *objects]).splitlines():
        header = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        if header:
            function = header[1]
        elif re.match(r"\s*[0-9a-f]+:\tv[a-z0-9]+ ", line) or re.search(r"%[yz]mm", line):
            inside = "4avx212_GLOBAL__N_1" in function or "6avx51212_GLOBAL__N_1" in function
            own += inside
            strays += not inside
            if not inside:
                found.add(function)
    assert own > 1000
    assert not found, f"{strays} AVX instructions outside of their tables, in {sorted(found)}"


@pytest.mark.skipif(not X86, reason="emulates other x86 processors on x86")
@pytest.mark.parametrize(("processor", "expected"), [("Nehalem", []), ("Haswell", ["avx2"])])
def test_tables_of_older_processors(native: Path, processor: str, expected: list[str]) -> None:
    qemu = need("qemu-x86_64-static", "qemu-user-static")
    output = run([qemu, "-cpu", processor, str(native / "kernel_test"), "--list"])
    assert tables(output) == expected


@pytest.mark.skipif(not X86, reason="SIMDe stands in for x86 intrinsics on x86")
def test_x86_tables_emulated(tmp_path: Path) -> None:
    """The same sources, executed on any x86 machine, whatever its instruction sets are."""
    compiler = need("g++", "g++")
    assert Path("/usr/include/simde").is_dir() or Path("/usr/local/include/simde").is_dir(), (
        "SIMDe is missing: install it with `apt install libsimde-dev`"
    )
    sources = tmp_path / "native"
    shutil.copytree(SOURCE_DIR, sources, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for source in (sources / "isa").glob("avx*.cpp"):
        text = source.read_text(encoding="utf-8")
        plain = re.sub(r"^#pragma GCC target.*$", "", text, flags=re.MULTILINE)
        assert plain != text, f"{source.name} no longer switches with a pragma"
        source.write_text(plain, encoding="utf-8")
    program = tmp_path / "kernel_test"
    flags = ["-std=c++17", "-O1", "-w", "-Wno-psabi", "-pthread", "-I", str(HERE / "simde")]
    inputs = [HERE / "kernel_test.cpp", *sorted((sources / "isa").glob("*.cpp"))]
    run([compiler, *flags, "-I", str(sources), "-o", str(program), *map(str, inputs)])
    output = run([str(program), "avx2", "avx512_vnni"])
    assert tables(output) == ["avx2", "avx512_vnni"]
    assert_all_passed(output)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kernel_test for 64-bit Arm, linked statically."""
    compiler = need("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    directory = tmp_path_factory.mktemp("arm_kernels")
    compile_objects(compiler, directory)
    return link(compiler, directory, "-static")


@pytest.mark.skipif(not X86, reason="an Arm machine runs its tables natively")
@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ("cortex-a53", ["neon"]),
        ("cortex-a76", ["neon", "neon_dotprod"]),
        ("max", ["neon", "neon_dotprod", "neon_i8mm"]),
    ],
)
def test_arm_tables(arm: Path, processor: str, expected: list[str]) -> None:
    """Each processor picks the tables it has; the widest of them is run on it."""
    qemu = [need("qemu-aarch64-static", "qemu-user-static"), "-cpu", processor, str(arm)]
    assert tables(run([*qemu, "--list"])) == expected
    output = run([*qemu, expected[-1]])
    assert tables(output) == expected[-1:]
    assert_all_passed(output)
