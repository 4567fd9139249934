"""The program and its engine: versions, the digests of their files, and whether these are as installed."""

from __future__ import annotations

import base64
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

import msgspec

from localai import __version__
from localai.audit import digests
from localai.audit.finding import Finding
from localai.engine import bindings, protocol
from models.files import sha256_of

DISTRIBUTION: Final = "localai-chat"
PACKAGES: Final = ("localai", "models", "quantize", "tui")
HERE: Final = Path(__file__).parents[2]
"""The folder that has our packages in it."""
INSTALL_AGAIN: Final = "Install it again from where you trust"

Installed = Literal["wheel", "editable", "source"]
"""editable: the files are those of a working copy, and no list says what they should be; source: it is not
installed at all."""


class Package(msgspec.Struct, frozen=True):
    """One of our own packages."""

    name: str
    files: int
    sha256: str
    """Over all its files: see `digests.of_tree`."""


class Program(msgspec.Struct, frozen=True):
    """What runs."""

    version: str
    python: str
    implementation: str
    platform: str
    executable: str
    folder: str
    installed: Installed
    packages: tuple[Package, ...]
    checked: int
    """Files that were compared with the wheel's list."""
    differing: tuple[str, ...]
    """Those that are not as in the wheel's list, or are gone; always empty where there is no list."""


class LibraryFile(msgspec.Struct, frozen=True):
    """One library of the engine."""

    name: str
    size: int
    sha256: str
    as_installed: bool | None
    """Whether it is as the list of its package says; None: that has no digest for it."""


class EngineFacts(msgspec.Struct, frozen=True):
    """llama.cpp, as the worker that runs it tells, and its files."""

    package: str
    version: str
    commit: str
    """Of llama.cpp; "" if the engine could not be started."""
    features: tuple[str, ...]
    gpu_backends: tuple[str, ...]
    libraries: tuple[LibraryFile, ...]
    error: str = ""


def program(root: Path = HERE) -> Program:
    """What is below `root`, which has our packages in it. OSError if a file cannot be read."""
    kind, listed = _installed(root)
    trees = {name: digests.of_tree(root / name) for name in PACKAGES}
    return Program(
        version=__version__,
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        platform=platform.platform(),
        executable=sys.executable,
        folder=str(root),
        installed=kind,
        packages=tuple(Package(name, count, digest) for name, (digest, count) in trees.items()),
        checked=len(listed),
        differing=differing(root, listed),
    )


def differing(root: Path, listed: dict[str, str]) -> tuple[str, ...]:
    """Paths of `listed` (path to digest) whose file below `root` is another or gone; and files not in it."""
    wrong = {name for name, digest in listed.items() if _digest(root / name) != digest}
    if listed:
        there = {
            path.relative_to(root).as_posix()
            for name in PACKAGES
            for path in digests.files_below(root / name)
        }
        wrong |= there - set(listed)
    return tuple(sorted(wrong))


def record(distribution: metadata.Distribution) -> dict[str, str]:
    """The digests in a wheel's list, by path, in small hex."""
    return {
        file.as_posix(): base64.urlsafe_b64decode(file.hash.value + "==").hex()
        for file in distribution.files or ()
        if file.hash is not None and file.hash.mode == "sha256"
    }


def engine(info: protocol.EngineInfo | None, error: str = "") -> EngineFacts:
    """The engine, of which the worker told `info`, or could not for `error`."""
    try:
        package = metadata.distribution("llama-cpp-python")
        version, listed = package.version, record(package)
    except metadata.PackageNotFoundError:
        version, listed = "not installed", {}
    return EngineFacts(
        package="llama-cpp-python",
        version=version,
        commit=info.llama_cpp_commit if info else "",
        features=tuple(info.features) if info else (),
        gpu_backends=bindings.gpu_backends(),
        libraries=tuple(_library(path, listed) for path in bindings.libraries() if not path.is_symlink()),
        error=error,
    )


def findings(facts: Program, made_of: EngineFacts) -> list[Finding]:
    """What is not as it should be."""
    found = []
    if facts.differing:
        shown = ", ".join(facts.differing[:3]) + (" ..." if facts.differing[3:] else "")
        what = f"files of the program that are not as they were installed: {len(facts.differing)} ({shown})"
        found.append(Finding("program", what, INSTALL_AGAIN))
    if facts.installed != "wheel":
        what = "it runs from a working copy: no list says what its files should be"
        found.append(Finding("program", what, "Compare the digests of its packages, or install a wheel"))
    for one in made_of.libraries:
        if one.as_installed is False:
            found.append(Finding("engine", f"{one.name} is not as it was installed", INSTALL_AGAIN))
    if made_of.error:
        what = f"the engine could not be started: {made_of.error}"
        found.append(Finding("engine", what, "`localai selftest` tells more"))
    if any("ggml-rpc" in one.name for one in made_of.libraries):
        what = "the engine has the RPC backend, which speaks to a network"
        found.append(Finding("engine", what, "Compile llama.cpp without GGML_RPC"))
    if made_of.gpu_backends:
        what = f"the engine has GPU backends ({', '.join(made_of.gpu_backends)}), whose sandbox is weaker"
        found.append(
            Finding("sandbox", what, "--gpu-layers 0 runs a model on the processor, in the full sandbox")
        )
    return found + _open_to_others(facts, made_of)


def _open_to_others(facts: Program, made_of: EngineFacts) -> list[Finding]:
    root = Path(facts.folder)
    ours = [path for name in PACKAGES for path in (root / name, *digests.files_below(root / name))]
    opened = digests.writable_by_others([root, *ours, *bindings.libraries(), Path(facts.executable)])
    if not opened:
        return []
    what = f"others may change {len(opened)} files of the program, such as {opened[0]}"
    return [Finding("program", what, "Take the right to write from them: chmod -R go-w, or chown")]


def _installed(root: Path) -> tuple[Installed, dict[str, str]]:
    """How the packages below `root` were installed, and the digests that the wheel's list has for them."""
    for found in metadata.distributions(path=[str(root)]):
        if _canonical(found.metadata["Name"]) == DISTRIBUTION:
            ours = {name: digest for name, digest in record(found).items() if name.split("/")[0] in PACKAGES}
            return ("wheel", ours) if ours else ("editable", {})
    try:
        metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "source", {}
    return "editable", {}


def _library(path: Path, listed: dict[str, str]) -> LibraryFile:
    digest = sha256_of(path)
    names = [name for name in listed if name.endswith(f"llama_cpp/lib/{path.name}")]
    known = listed[names[0]] if names else None
    return LibraryFile(path.name, path.stat().st_size, digest, None if known is None else known == digest)


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
