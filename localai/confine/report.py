"""What confines a process, as data: each layer, what stays open, and the level that this amounts to."""

from __future__ import annotations

from typing import Literal

import msgspec

from localai.confine.choice import Mode
from localai.errors import SandboxError

Level = Literal["full", "partial", "none"]
"""full: nothing of what the sandbox promises to close is open; partial: some is, and `open` says what; none:
nothing is closed, and `why` says the reason."""

LayerName = Literal["no_new_privs", "network_namespace", "landlock", "rlimits", "seccomp", "seatbelt"]
Profile = Literal["cpu", "gpu", "quantize"]
"""cpu: reads models and the runtime, nothing else. gpu: also opens the nodes of GPUs, which is weaker.
quantize: also writes to the files that it inherits open."""


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One mechanism."""

    name: LayerName
    on: bool
    detail: str = ""
    """Why it is off, or how far it goes, such as "ABI 7"."""


class Sandbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was achieved for one process."""

    level: Level
    layers: tuple[Layer, ...] = ()
    open: tuple[str, ...] = ()
    """What it can still do that it should not, a few words each; empty at `full`."""
    why: str = ""
    """Why it is not `full`; one sentence without its full stop."""
    profile: Profile = "cpu"

    def layer(self, name: LayerName) -> Layer | None:
        """The layer of that name, if it was tried."""
        return next((layer for layer in self.layers if layer.name == name), None)


NOT_STARTED = Sandbox("none", why="no worker has been started")
OFF = Sandbox("none", why="it was switched off")
NOT_LINUX = Sandbox("none", why="not sandboxed: there is no sandbox for this system yet")


def words(sandbox: Sandbox) -> str:
    """One line for people, such as "full (Landlock ABI 7, seccomp, network namespace, limits)"."""
    shown = {
        "no_new_privs": "no new privileges",
        "network_namespace": "network namespace",
        "landlock": "Landlock",
        "rlimits": "limits",
        "seccomp": "seccomp",
        "seatbelt": "Seatbelt",
    }
    on = [
        shown[layer.name] + (f" {layer.detail}" if layer.name == "landlock" and layer.detail else "")
        for layer in sandbox.layers
        if layer.on
    ]
    text = sandbox.level + (f" ({', '.join(on)})" if on else "")
    if sandbox.open:
        text += f"; open: {', '.join(sandbox.open)}"
    return f"{text}: {sandbox.why}" if sandbox.why else text


def short(sandbox: Sandbox) -> str:
    """In two words, for a line that has little room."""
    return {"full": "sandbox full", "partial": "sandbox partial", "none": "no sandbox"}[sandbox.level]


def require(mode: Mode, sandbox: Sandbox) -> None:
    """SandboxError if `mode` requires more than was achieved."""
    if mode == "require" and sandbox.level != "full":
        without_gpu = "Only the processor, without a GPU, can have it: --gpu-layers 0"
        as_it_is = "`localai audit` shows each layer; without --sandbox require, what there is is taken"
        raise SandboxError(
            f"nothing is loaded: the sandbox must be full (--sandbox require), and is {words(sandbox)}",
            without_gpu if sandbox.profile == "gpu" else as_it_is,
        )
