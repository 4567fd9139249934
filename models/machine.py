"""What a model would run on: memory, processor, GPUs, as far as it decides what fits and how fast it is."""

from __future__ import annotations

from typing import Final

import msgspec

from localai import hardware
from models import bandwidth
from models.bandwidth import Measured
from models.fit import usable_memory
from models.offload import Memory


class Gpus(msgspec.Struct, frozen=True):
    """The devices that the engine moves layers to."""

    devices: tuple[Memory, ...] = ()
    shared: bool = False
    """Whether they have no memory of their own, and take their part of the main memory."""


NO_GPUS: Final = Gpus()


class Machine(msgspec.Struct, frozen=True):
    """A machine. Sizes are bytes."""

    memory: int
    """Of memory in the machine, or that this container may use."""
    cores: int
    """Physical cores that may be used."""
    gpus: tuple[Memory, ...] = ()
    """Of the devices that the engine moves layers to."""
    available: int | None = None
    """What can be had now without swapping; None: what is left beside the system and a browser."""
    measured: Measured | None = None
    """How fast it reads memory; None: nobody has measured it."""
    shared: bool = False
    """Whether the GPUs have no memory of their own, and take their part of the main memory."""

    @property
    def gpu_memory(self) -> int:
        """Of the largest GPU; 0: there is none."""
        return max((gpu.total for gpu in self.gpus), default=0)

    @property
    def usable(self) -> int:
        """What a model may take once other programs have made room."""
        return max(usable_memory(self.memory), self.free)

    @property
    def free(self) -> int:
        """What a model may take as things are."""
        return usable_memory(self.memory) if self.available is None else max(0, self.available)


def this_machine(gpus: Gpus = NO_GPUS, *, given_back: int = 0, measure: bool = False) -> Machine:
    """This machine as it is now, with `gpus`, which only the engine knows.

    `given_back`: bytes of memory that become free before a model is loaded. With `measure`, its speed is
    measured if it is not known, which takes half a second.
    """
    return Machine(
        hardware.total_memory(),
        hardware.physical_cores(),
        gpus.devices,
        hardware.available_memory() + given_back,
        bandwidth.measured() if measure else bandwidth.known(),
        gpus.shared,
    )


def machine_id() -> str:
    """Which machine a measured speed counts on: its processor and the cores that may be used, in words.

    Nothing in it tells one such machine from another of the same kind: they are as fast.
    """
    return f"{hardware.processor()}, {hardware.physical_cores()} cores"
