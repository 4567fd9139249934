"""The worker's first step: it confines itself, before it reads anything that others wrote."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from localai import confine
from localai.confine import readable
from localai.confine.report import Sandbox
from localai.engine import bindings, protocol


class Confinement(NamedTuple):
    """What a worker is confined to."""

    sandbox: Sandbox
    names: dict[str, str]
    """How it must call the files of the request, which can have been reached by another process."""


def confine_as(request: protocol.Confine) -> Confinement:
    """Confine this process, which has one thread, for good. EngineError if llama.cpp cannot be loaded."""
    names = dict(map(_name, request.reads))
    gpu = request.gpu and bool(bindings.gpu_backends())
    sandbox = confine.enter(request.mode, "gpu" if gpu else "cpu", list(names.values()), bindings.bindings)
    return Confinement(sandbox, names)


def attacked(targets: bytes) -> bytes:
    """What comes of attacks on `targets` from within this process; both as in `protocol.Attack`."""
    from localai.confine import attacks  # only `localai audit` needs them

    aims = msgspec.msgpack.decode(targets, type=attacks.Targets)
    return msgspec.msgpack.encode(attacks.run(aims))


def _name(path: str) -> tuple[str, str]:
    try:
        return path, readable.opened(path)[0]
    except OSError:
        return path, path  # loading it tells what is wrong
