"""Confines this process on Linux, in the order that experiment found.

No new privileges, then a network namespace (which takes a process of one thread), then Landlock (which
holds for threads that are begun later), then limits; then what must be imported is (llama_cpp opens
/dev/null for writing); then the filter of system calls, over all threads. Only then may a model be opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, get_args

from localai.confine import landlock, privileges, probes, readable, seccomp
from localai.confine.limits import Limits
from localai.confine.report import Layer, LayerName, Level, Profile, Sandbox

LAYERS: Final[tuple[LayerName, ...]] = ("no_new_privs", "network_namespace", "landlock", "rlimits", "seccomp")

_held: list[int] = []
"""Descriptors that the rules of Landlock rely on."""


def enter(
    profile: Profile,
    reads: Sequence[str],
    prepare: Callable[[], object] = lambda: None,
    *,
    lists: Sequence[str] = (),
    layers: Collection[LayerName] = LAYERS,
    landlock_abi: int = landlock.NEWEST,
) -> Sandbox:
    """Confine this process for good: it can then read `reads` and the runtime, compute, and answer.

    `reads` are files, or folders with all that is in them; of the folders `lists` it sees what is there.
    `prepare` runs when files can no longer be written but all calls still be made. What a layer cannot do
    here is reported, not raised. `layers` and `landlock_abi` leave things out, as on a system that has not
    got them.
    """
    outside, threads = probes.Outside.look(), _threads()
    nodes = [*readable.WRITABLE, *(readable.gpu_nodes() if profile == "gpu" else [])]
    files = [*reads, *readable.runtime(), *(readable.GPU_READS if profile == "gpu" else [])]
    limits = Limits.of(profile, reads)

    def rules() -> str:
        abi, held = landlock.restrict(files, lists, nodes, most=landlock_abi)
        _held.extend(held)
        older = "" if abi >= 8 or threads == 1 else ", not for threads that were there before"
        return f"ABI {abi}{older}"

    def filter_() -> str:
        prepare()
        return seccomp.install(profile)

    def limited() -> str:
        privileges.keep_memory()
        return limits.set()

    steps: dict[LayerName, Callable[[], str | None]] = {
        "no_new_privs": privileges.no_new_privileges,
        "network_namespace": _leave_network,
        "landlock": rules,
        "rlimits": limited,
        "seccomp": filter_,
    }
    done = tuple(_layer(name, steps[name], name in layers) for name in get_args(LayerName) if name in steps)
    if "seccomp" not in layers:
        prepare()
    return judged(profile, done, probes.still_open(outside))


def judged(profile: Profile, layers: tuple[Layer, ...], found: Sequence[probes.Concern]) -> Sandbox:
    """The level that this amounts to: what was found open counts, not what was switched on."""
    opened = [probes.WORDS[concern] for concern in found]
    if profile == "gpu":
        opened.append("the GPU's driver")
    older = [layer.detail for layer in layers if layer.name == "landlock" and "threads" in layer.detail]
    opened += ["reading other files in threads that were there before"] if older else []
    on = {layer.name for layer in layers if layer.on}
    if not opened:
        return Sandbox("full", layers, profile=profile)
    missing = [layer for layer in layers if not layer.on and layer.name != "network_namespace"]
    why = "; ".join(f"{layer.name} is off: {layer.detail}" for layer in missing)
    why = why or ("a GPU's driver needs more than the processor" if profile == "gpu" else "")
    level: Level = "partial" if on & {"landlock", "seccomp"} else "none"
    return Sandbox(level, layers, tuple(opened), why, profile)


def _leave_network() -> str:
    try:
        return privileges.leave_network()
    finally:
        privileges.drop_capabilities()


def _layer(name: LayerName, step: Callable[[], str | None], wanted: bool) -> Layer:
    if not wanted:
        return Layer(name, False, "left out")
    try:
        return Layer(name, True, step() or "")
    except OSError as error:
        return Layer(name, False, (error.strerror or str(error)).lower())


def _threads() -> int:
    """How many threads this process has."""
    with suppress(OSError):
        return len(list(Path("/proc/self/task").iterdir()))
    return 1 + (os.cpu_count() or 1)
