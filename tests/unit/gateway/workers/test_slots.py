"""`rempart.gateway.workers.slots`: numbers that processes share."""

from __future__ import annotations

import os
import subprocess
import sys

from rempart.gateway.workers.slots import Slots, new_slots

CHILD = """
import sys
from rempart.gateway.workers.slots import Slots
slots = Slots(int(sys.argv[1]), 1)
slots.put(5)
print(slots.total())
"""


def test_each_writes_its_own_and_reads_all() -> None:
    descriptor = new_slots(3)
    first, second = Slots(descriptor, 0), Slots(descriptor, 2)
    assert first.total() == 0
    first.put(2)
    second.put(40)
    assert first.total() == second.total() == 42
    first.clear(2)
    assert second.total() == 2
    first.close()
    second.close()
    os.close(descriptor)


def test_another_process_sees_them_and_they_outlive_it() -> None:
    descriptor = new_slots(2)
    here = Slots(descriptor, 0)
    here.put(37)
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(descriptor)],
        pass_fds=[descriptor],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "42\n"
    assert here.total() == 42
    here.clear(1)
    assert here.total() == 37
    here.close()
    os.close(descriptor)
