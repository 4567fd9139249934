"""The same by other calls: what a filter forgets that knows only the calls which libraries make today.

Each aims at a victim of its own, by the call's number.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable
from typing import Any, Final

from localai.confine.attacks.kinds import Attack
from localai.confine.attacks.numbers import call
from localai.confine.attacks.targets import MODEL_MODE, Targets
from localai.confine.probes import Concern

_HERE: Final = -100
"""AT_FDCWD."""
_REMOVE_FOLDER: Final = 0x200
_UNUSED: Final = 0x6C6F6361
"""A key that nobody has made anything for."""
_THREAD_KEYS: Final = -1
_OLDER: Final = "x86-64"


def _by(name: str, arguments: Callable[[Targets], tuple[Any, ...]], concern: Concern = "write") -> Attack:
    """The call `name`, which aarch64 may have."""

    def attempt(targets: Targets) -> None:
        call(name, *arguments(targets))

    return Attack(concern, attempt)


def _older(name: str, arguments: Callable[[Targets], tuple[Any, ...]]) -> Attack:
    """The call `name`, which only x86-64 has."""
    return _by(name, arguments)._replace(needs=_OLDER)


def _finding_nothing(name: str, *arguments: int | bytes) -> Callable[[Targets], None]:
    """A look for what is not there: that it is not there is said to those who may look."""

    def attempt(_: Targets) -> None:
        try:
            call(name, *arguments)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOKEY):
                raise

    return attempt


def _queued(targets: Targets) -> tuple[Any, ...]:
    return targets.app, targets.app, 0, struct.pack("=iii", 0, 0, -1).ljust(128, b"\0")


def _scheduled(targets: Targets) -> tuple[Any, ...]:
    """struct sched_attr, as things are."""
    kind = os.sched_getscheduler(targets.app)
    return targets.app, struct.pack("=IIQiIQQQ", 48, kind, 0, targets.niceness, 0, 0, 0, 0), 0


def _watch(targets: Targets) -> None:
    """See when a file elsewhere is used."""
    opened = call("inotify_init1", 0)
    try:
        call("inotify_add_watch", opened, targets.secret.encode(), 1)
    finally:
        os.close(opened)


def _aio(_: Targets) -> None:
    context = ctypes.c_ulong()
    call("io_setup", 1, ctypes.byref(context))
    call("io_destroy", context.value)


def _path(of: Callable[[Targets], str]) -> Callable[[Targets], bytes]:
    return lambda targets: of(targets).encode()


_model = _path(lambda targets: targets.model)


def _victim(name: str) -> Callable[[Targets], bytes]:
    return _path(lambda targets: targets.victim(name))


def _fresh(name: str) -> Callable[[Targets], bytes]:
    return _path(lambda targets: targets.fresh(name))


def _owner() -> tuple[int, int]:
    return os.geteuid(), os.getegid()


ATTACKS: Final = {
    "make a folder by mkdirat": _by("mkdirat", lambda t: (_HERE, _fresh("mkdirat")(t), 0o700)),
    "remove a file by unlinkat": _by("unlinkat", lambda t: (_HERE, _victim("unlinkat")(t), 0)),
    "remove a folder by unlinkat": _by("unlinkat", lambda t: (_HERE, _victim("rmdirat")(t), _REMOVE_FOLDER)),
    "rename a file by renameat": _by(
        "renameat", lambda t: (_HERE, _victim("renameat")(t), _HERE, _fresh("renameat")(t))
    ),
    "link to a file by linkat": _by(
        "linkat", lambda t: (_HERE, _victim("linkat")(t), _HERE, _fresh("linkat")(t), 0)
    ),
    "symbolic link by symlinkat": _by("symlinkat", lambda t: (b"/", _HERE, _fresh("symlinkat")(t))),
    "named pipe by mknod": _older("mknod", lambda t: (_fresh("mknod")(t), stat.S_IFIFO | 0o600, 0)),
    "rights of the model by fchmodat": _by("fchmodat", lambda t: (_HERE, _model(t), MODEL_MODE)),
    "owner of the model by chown": _older("chown", lambda t: (_model(t), *_owner())),
    "owner of the model by lchown": _older("lchown", lambda t: (_model(t), *_owner())),
    "owner of the model by fchownat": _by("fchownat", lambda t: (_HERE, _model(t), *_owner(), 0)),
    "times of the model by utime": _older("utime", lambda t: (_model(t), None)),
    "times of the model by utimes": _older("utimes", lambda t: (_model(t), None)),
    "times of the model by futimesat": _older("futimesat", lambda t: (_HERE, _model(t), None)),
    "attribute of the model by setxattr": _by(
        "setxattr", lambda t: (_model(t), b"user.localai-2", b"x", 1, 0)
    )._replace(needs="a file system that can"),
    "attribute of the model by lsetxattr": _by(
        "lsetxattr", lambda t: (_model(t), b"user.localai-3", b"x", 1, 0)
    )._replace(needs="a file system that can"),
    "watch a file elsewhere": Attack("kernel", _watch),
    "signal to the app by tkill": _by("tkill", lambda t: (t.app, 0), "processes"),
    "queued signal to a thread of the app": _by("rt_tgsigqueueinfo", _queued, "processes"),
    "scheduling of the app by sched_setattr": _by("sched_setattr", _scheduled, "processes"),
    "pages of the app": _by("move_pages", lambda t: (t.app, 0, None, None, None, 0), "processes")._replace(
        needs="a system that allows it, as containers do not"
    ),
    "shared memory": Attack("processes", _finding_nothing("shmget", _UNUSED, 4096, 0)),
    "semaphore": Attack("processes", _finding_nothing("semget", _UNUSED, 1, 0)),
    "message queue": Attack("processes", _finding_nothing("msgget", _UNUSED, 0)),
    "message queue with a name": Attack(
        "processes", _finding_nothing("mq_open", b"localai-none", os.O_RDONLY, 0, 0), "a kernel that has them"
    ),
    "keys": Attack("kernel", _finding_nothing("keyctl", 0, _THREAD_KEYS, 0), "a kernel that keeps keys"),
    "asynchronous reading": Attack("kernel", _aio, "a kernel that can"),
    "another root folder": _by("chroot", lambda t: (b"/",), "kernel")._replace(needs="root"),
}
