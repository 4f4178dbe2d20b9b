from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.peers.pipe import Peer, PeerError

CHILD = """
import os, sys
from benchmarks.peers.pipe import serve

def add(a, b):
    print("a library's chatter", flush=True)
    os.write(1, b"more of it")
    return a + b

serve({"add": add, "fail": lambda: 1 / 0, "die": lambda: os._exit(3)})
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def peer():
    command = [sys.executable, "-c", CHILD]
    cores = sorted(os.sched_getaffinity(0))[:1]
    with Peer(command, cores, {"PYTHONPATH": str(ROOT)}) as started:
        yield started


def test_answers_stay_apart_from_what_libraries_print(peer):
    assert [peer.ask("add", a=i, b=1) for i in range(3)] == [1, 2, 3]


def test_a_failure_leaves_the_child_alive(peer):
    with pytest.raises(PeerError, match="ZeroDivisionError"):
        peer.ask("fail")
    assert peer.ask("add", a=1, b=1) == 2


def test_a_dead_child_is_an_error(peer):
    with pytest.raises(PeerError, match="ended with 3"):
        peer.ask("die")


def test_memory_of_the_child(peer):
    memory = peer.ask("memory")
    assert memory["VmHWM"] >= memory["VmRSS"] > 1000
