"""What a hostile case is, and the little world in which it runs.

A case makes one hostile input and names the command that a user would give it to. `Case` says what that must
yield: the exit code, and a pattern of the one line of an error, or of the output where it is to pass. In the
world of a case (`Scene`) only the store may change: everything else in it is compared before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

CANARY = "canary"
"""The folder in which a template, or a path that leads outside, would leave something."""


@dataclass(frozen=True)
class Scene:
    """A home, a temporary folder, a working folder, inputs and a store, of one case alone."""

    root: Path
    nano: Path
    """A real model that works: r1-nano at Q8_0."""
    checkpoint: Path
    """The checkpoint that it was made from, on the same disk, so that its files can be linked."""

    @property
    def store(self) -> Path:
        """LOCALAI_HOME: the only folder that may change."""
        return self.root / "store"

    @property
    def models(self) -> Path:
        """The store of models."""
        return self.store / "data" / "models"

    @property
    def files(self) -> Path:
        """Where the inputs are."""
        return self.root / "files"

    @property
    def canary(self) -> Path:
        """Where nothing may ever appear."""
        return self.root / CANARY

    def write(self, name: str, data: bytes | str) -> Path:
        """An input file of that content."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
        return path


Make = Callable[[Scene], Path]


@dataclass(frozen=True)
class Case:
    """One hostile input and what it must yield."""

    name: str
    make: Make
    """Makes it; the path that it returns stands for {input} in `command`."""
    command: str
    """The words after `localai`, with a space between them; {files} is the folder of the inputs."""
    says: str
    """A pattern that the one error line, or for code 0 the whole output, must have."""
    code: int = 1
    names: str = "{input}"
    """What the error line must name: the input as a whole path; "" nothing, or some other word."""
    environment: dict[str, str] = field(default_factory=dict)
    """Further variables; {input} stands for the path here, too."""


def parsed(data: bytes | str, name: str) -> Make:
    """Makes a file of that content and name."""
    return lambda scene: scene.write(name, data)
