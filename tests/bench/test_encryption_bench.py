"""The bench of encryption counts the processor time of all processes of a run, and compares within pairs."""

from __future__ import annotations

import subprocess
import sys

from tests.bench.encryption import Cost, Pair, summary

ORPHAN = """
import os, subprocess, sys, time
from tests.bench.encryption import adopt_orphans, cpu_seconds, reap_all
adopt_orphans()
work = "import time; end = time.process_time() + 0.5\\nwhile time.process_time() < end: pass"
# The middle process ends at once; its child works on without a parent.
middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
subprocess.run([sys.executable, "-c", middle], check=True)
reap_all()
print(cpu_seconds())
"""


def test_processes_whose_parents_have_ended_count() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=True)
    assert float(done.stdout) >= 0.5


def test_ratios_are_those_of_the_pairs() -> None:
    """The machine was slower for the second pair, which says nothing about encryption."""
    pairs = [Pair(Cost(10, 20), Cost(11, 21)), Pair(Cost(30, 60), Cost(33, 63)), Pair(Cost(10, 20), Cost(10, 40))]
    found = summary(pairs)
    assert (found["wall_plain"], found["wall_encrypted"], found["cpu_encrypted"]) == (10, 11, 40)
    assert (found["wall_ratio"], found["cpu_ratio"]) == (1.1, 1.05)
