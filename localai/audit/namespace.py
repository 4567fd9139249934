"""A network of one's own, with nothing but a loopback, whose packets can be counted.

Source: network_namespaces(7), netdevice(7), proc_pid_net(5).
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Final

from localai.confine import privileges

_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_UP: Final = 1
_COUNTERS: Final = Path("/proc/self/net/dev")


def enter() -> None:
    """Move this process, which has one thread, there. OSError where the system does not allow it."""
    user, group = os.geteuid(), os.getegid()
    privileges.leave_network()
    if user != 0:  # a user namespace came with it: else this process would be nobody
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _bring_up("lo")


def packets() -> int:
    """All packets sent in this network so far, by any process, whether or not they arrived. OSError."""
    return sum(_sent(line) for line in _COUNTERS.read_text().splitlines()[2:])


def send_one() -> None:
    """Send one packet, which the counter must see. OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"localai audit", ("127.0.0.1", 9))


def _sent(line: str) -> int:
    """Packets and failures to send one, of an interface."""
    numbers = line.rpartition(":")[2].split()
    return int(numbers[9]) + int(numbers[10]) + int(numbers[11])


def _bring_up(interface: str) -> None:
    import fcntl  # Windows has none

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", interface.encode(), 0)
        flags = struct.unpack_from("=H", fcntl.ioctl(any_socket, _GET_FLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", interface.encode(), flags | _UP))
