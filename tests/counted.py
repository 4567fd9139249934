"""Runs a command in a network of its own, whose only interface is the loopback, and counts what passes there.

    unshare -rn python -P tests/counted.py RESULT COMMAND...
    unshare -rn python -P tests/counted.py RESULT --one-datagram

RESULT is a file that gets a line of JSON: bytes and packets in both directions, before and after. The exit
code is the command's.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

_SET_FLAGS: Final = 0x8914
_UP_AND_RUNNING: Final = 0x41
_BYTES_AND_PACKETS: Final = (0, 1, 8, 9)


def main(result: Path, command: list[str]) -> int:
    """Bring the loopback up and run the command between two counts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        fcntl.ioctl(opened, _SET_FLAGS, struct.pack("16sh", b"lo", _UP_AND_RUNNING))
    before = counts()
    code = one_datagram() if command == ["--one-datagram"] else subprocess.call(command)
    with result.open("a") as lines:
        lines.write(json.dumps({"before": before, "after": counts()}) + "\n")
    return code


def counts() -> dict[str, list[int]]:
    """Of each interface: bytes and packets received, bytes and packets sent."""
    lines = [line.partition(":") for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
    return {
        name.strip(): [int(numbers.split()[column]) for column in _BYTES_AND_PACKETS]
        for name, _, numbers in lines
    }


def one_datagram() -> int:
    """What the counters must see."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.sendto(b"x", ("127.0.0.1", 9))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
