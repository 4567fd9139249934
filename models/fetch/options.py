"""How a transfer goes about it. The defaults are for use; tests make all smaller."""

from __future__ import annotations

import msgspec

_MB = 1024 * 1024


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are bytes, times are seconds."""

    connections: int = 4
    range: int = 16 * _MB
    """Most that is asked for at one time; and most that comes twice after a process has died."""
    least_range: int = _MB
    window: int = 48 * _MB
    """How far before the hash bytes are asked for. It bounds memory: window, one range and one piece each."""
    piece: int = _MB
    """How much is written at one time."""
    piece_seconds: float = 1.0
    """After so long what has come is written, be it less."""
    header: int = 16 * _MB
    """How much of the file's begin must be there for its header to be read."""
    durable: int = 64 * _MB
    """After so much the file is flushed to the disk, and that is noted ..."""
    durable_seconds: float = 30.0
    """... and after so long."""

    space: int = 64 * _MB
    """After so much of a file of unknown size the space on the disk is looked at ..."""
    unsized: int = 200 * 10**9
    """... and after so much the transfer is ended: no such file has as much."""

    attempts: int = 10
    """So many failures in a row end the transfer."""
    first_attempts: int = 4
    """... if nothing has come at all, and the server is not just busy: there may be no network."""
    first_wait: float = 0.5
    longest_wait: float = 60.0
    longest_retry_after: float = 300.0
    """A server that wants to be left alone for longer ends the transfer."""
    progress: int = 64 * 1024
    """So much must have come for failures to be counted anew."""
    slow_rate: float = 1024.0
    """A connection on which less than this comes in a second ..."""
    slow_seconds: float = 30.0
    """... for so long is given up."""
    starving_seconds: float = 5.0
    """A connection that waits so long for one that is much slower ends that one."""
    tick: float = 0.1
    """How often it is said how far it is."""
    connect_timeout: float = 15.0
    read_timeout: float = 30.0
    receive_buffer: int = 0
    """Bytes that the system holds of each connection; 0: as it likes."""
    boot: str = ""
    """What tells this start of the machine from others; "": the system's own name for it."""
