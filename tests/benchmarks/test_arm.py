from __future__ import annotations

import shutil

import pytest

from benchmarks.arm_attention import value_loops
from benchmarks.arm_cost import GCC, ISA_DIR, TABLES
from benchmarks.arm_loops import newest
from benchmarks.arm_phones import TOKEN_BYTES, TOKEN_WEIGHTS, Phone, speed
from benchmarks.arm_textbook import textbook_loop

PHONE = Phone("A phone", "cortex-a75", (2.0, 1.0), 15.0, "neon_dotprod")


def test_decode_is_bound_by_memory_or_cores():
    fast = speed(PHONE, 0.01, 0.01)
    assert fast.memory_bound
    assert fast.decode == pytest.approx(0.66 * 15e9 / TOKEN_BYTES)
    slow = speed(PHONE, 1.0, 1.0)
    assert not slow.memory_bound
    assert slow.decode == pytest.approx(3e9 / TOKEN_WEIGHTS)
    assert slow.text().startswith("5 decode (cores)")


@pytest.fixture(scope="module")
def compiler():
    clang = newest("clang++")
    compiler = f"{clang} --target=aarch64-linux-gnu" if shutil.which(clang) else GCC
    if not shutil.which(compiler.split()[0]):
        pytest.skip("there is no compiler for Arm")
    return compiler


def test_the_textbook_loop_is_two_blocks(compiler):
    loop = textbook_loop(compiler)
    # 64 weights: four SDOTs of 16.
    assert loop.dots == 4


def test_the_loops_over_values_are_those_of_two_queries(compiler):
    for table in TABLES:
        outer, inner = value_loops(ISA_DIR, compiler, table, "int8")
        assert inner is not None
        assert inner.instructions < outer.instructions
        # 8 dimensions by 16 positions for two queries: an SDOT has 16 products, and without SDOT
        # there is at least an instruction for 16.
        assert inner.dots >= 16
        group, none = value_loops(ISA_DIR, compiler, table, "int4")
        assert none is None
        # 32 dimensions by 16 positions for two queries.
        assert group.dots >= 64
