"""Attempts to reach the network, this machine's other processes by sockets, or the kernel by one."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import Final

from localai.confine import calls
from localai.confine.attacks.kinds import Attack, in_thread
from localai.confine.attacks.numbers import call
from localai.confine.attacks.targets import Targets

_HERE: Final = "127.0.0.1"
_SECONDS: Final = 2.0
"""A connection on the same machine takes no longer."""


def _connect(family: int, kind: int, protocol: int, address: object) -> None:
    with socket.socket(family, kind, protocol) as opened:
        opened.settimeout(_SECONDS)
        opened.connect(address)  # type: ignore[arg-type]


def _make(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def _tcp(targets: Targets) -> None:
    _connect(socket.AF_INET, socket.SOCK_STREAM, 0, (_HERE, targets.tcp_port))


def _tcp_by_library(targets: Targets) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    opened = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    if opened < 0:
        raise calls.failed()
    try:
        address = _address(targets.tcp_port)
        if libc.connect(opened, address, len(address)) < 0:
            raise calls.failed()
    finally:
        os.close(opened)


def _tcp_by_number(targets: Targets) -> None:
    opened = call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    try:
        address = _address(targets.tcp_port)
        call("connect", opened, address, len(address))
    finally:
        os.close(opened)


def _address(port: int) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(_HERE))


def _tcp_in_thread(targets: Targets) -> None:
    in_thread(lambda: _tcp(targets))


def _tcp_fast_open(targets: Targets) -> None:
    """The first packet brings data along, and no connect(2) is called."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", int(_SECONDS), 0))
        opened.sendto(b"x", socket.MSG_FASTOPEN, (_HERE, targets.tcp_port))


def _tcp6(targets: Targets) -> None:
    if not targets.tcp6_port:
        raise NotImplementedError("no IPv6")
    _connect(socket.AF_INET6, socket.SOCK_STREAM, 0, ("::1", targets.tcp6_port))


def _mptcp(targets: Targets) -> None:
    protocol = getattr(socket, "IPPROTO_MPTCP", 262)
    _connect(socket.AF_INET, socket.SOCK_STREAM, protocol, (_HERE, targets.tcp_port))


def _tcp_server(_: Targets) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
        opened.bind((_HERE, 0))
        opened.listen(1)


def _udp(targets: Targets) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.sendto(b"x", (_HERE, targets.udp_port))


def _udp_server(_: Targets) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((_HERE, 0))


def _pair(_: Targets) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()


def _pass_descriptor(targets: Targets) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open(targets.model, "rb") as model:  # noqa: PTH123 - as an attacker would
        socket.send_fds(ours, [b"x"], [model.fileno()])
        for passed in socket.recv_fds(theirs, 1, 1)[1]:
            os.close(passed)


def _unix_server(targets: Targets) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(f"{targets.unix_path}-of-attack")
        opened.listen(1)


def _netlink(_: Targets) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as opened:
        opened.bind((0, 0))


def _kernel_cipher(_: Targets) -> None:
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0) as opened:
        opened.bind(("hash", "sha256"))


def _io_uring(_: Targets) -> None:
    os.close(call("io_uring_setup", 2, ctypes.create_string_buffer(120)))


ATTACKS: Final = {
    "TCP connect": Attack("network", _tcp),
    "TCP connect by the C library": Attack("network", _tcp_by_library),
    "TCP connect by system call": Attack("network", _tcp_by_number),
    "TCP connect in a new thread": Attack("network", _tcp_in_thread),
    "TCP fast open": Attack("network", _tcp_fast_open, "TCP fast open"),
    "TCP connect over IPv6": Attack("network", _tcp6, "IPv6"),
    "MPTCP connect": Attack("network", _mptcp, "MPTCP"),
    "TCP server": Attack("network", _tcp_server),
    "UDP datagram": Attack("network", _udp),
    "UDP server": Attack("network", _udp_server),
    "SCTP socket": Attack("network", lambda _: _make(socket.AF_INET, socket.SOCK_STREAM, 132), "SCTP"),
    "raw socket": Attack("network", lambda _: _make(socket.AF_INET, socket.SOCK_RAW, 1), "root"),
    "packet socket": Attack("network", lambda _: _make(socket.AF_PACKET, socket.SOCK_RAW), "root"),
    "netlink socket": Attack("network", _netlink),
    "vsock socket": Attack("network", lambda _: _make(socket.AF_VSOCK, socket.SOCK_STREAM), "vsock"),
    "kernel cipher socket": Attack("network", _kernel_cipher, "AF_ALG"),
    "Unix socket with a path": Attack(
        "network", lambda targets: _connect(socket.AF_UNIX, socket.SOCK_STREAM, 0, targets.unix_path)
    ),
    "Unix socket with a name": Attack(
        "network", lambda targets: _connect(socket.AF_UNIX, socket.SOCK_STREAM, 0, targets.abstract_name)
    ),
    "Unix server with a path": Attack("network", _unix_server),
    "pair of sockets": Attack("network", _pair),
    "descriptor through a socket pair": Attack("network", _pass_descriptor),
    "io_uring": Attack("network", _io_uring, "io_uring"),
}
