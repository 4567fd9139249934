"""What the about screen tells: the program, its engine, the model and where it is from, the conversations."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from localai import __version__, hardware, policy
from localai.chat.clean import clean_line
from localai.confine.report import Sandbox, words
from localai.engine.protocol import Device, EngineInfo, Loaded, StatusReport
from localai.errors import LocalAIError
from localai.history import History, Kept, key
from models.manifest import Manifest
from models.origins import describe
from models.store import Store
from tui.format import count, size
from tui.session import Session
from tui.shelf import ModelEntry

COLUMN: Final = 15
"""Cells for the label before a value."""
NETWORK: Final = "None is used, except to fetch a model that you ask for (`localai models pull`)."
_BESIDE: Final = ("", "-wal")
"""The database, and what was written to it last."""


class Part(NamedTuple):
    """A heading, and labels with values below it."""

    heading: str
    rows: list[tuple[str, str]]


class Engine(NamedTuple):
    """What the engine said of itself; None: it has not answered (yet)."""

    info: EngineInfo | None = None
    report: StatusReport | None = None
    problem: str = ""
    """Why it cannot be asked."""


def parts(session: Session, engine: Engine) -> list[Part]:
    """All that there is to tell. Values are clean; those that are empty are left out."""
    loader = session.loader
    found = [
        Part("Program", _program()),
        Part("Engine", _engine(engine, loader.loaded, session.engine.sandbox)),
        Part("Model", _model(loader.entry, loader.loaded)),
        Part("Conversations", _conversations(session.history, session.kept)),
    ]
    return [Part(part.heading, [(a, clean_line(b)) for a, b in part.rows if b]) for part in found]


def as_text(told: Sequence[Part]) -> str:
    """For a report: as it is shown, with "~" for the user's home folder."""
    lines = [f"localai {__version__}"]
    for part in told:
        lines += ["", part.heading, *(f"  {label:<{COLUMN}}{_homeless(value)}" for label, value in part.rows)]
    return "\n".join(lines) + "\n"


def _program() -> list[tuple[str, str]]:
    return [
        ("version", __version__),
        ("runs on", f"Python {platform.python_version()}, {platform.platform()}"),
        ("screen", f"Textual {metadata.version('textual')}, {os.environ.get('TERM', '')}"),
        ("network", NETWORK),
        ("policy", policy_words()),
    ]


def policy_words() -> str:
    """What the organization demands, by which file; "" without a policy."""
    told: dict[str, list[str]] = {}
    for text, file in policy.describe():
        told.setdefault(file, []).append(text)
    whole = "; ".join(f"{', '.join(texts)} ({file})" for file, texts in told.items())
    return f"{whole}; SHA-256 {policy.fingerprint()}" if whole else ""


def _engine(engine: Engine, loaded: Loaded | None, sandbox: Sandbox) -> list[tuple[str, str]]:
    info, report = engine.info, engine.report
    version = metadata.version("llama-cpp-python")
    commit = f"commit {info.llama_cpp_commit}, " if info else ""
    threads = report.threads if report else loaded.threads if loaded else 0
    layers = loaded.gpu_layers if loaded else 0
    return [
        ("llama.cpp", f"{commit}with llama-cpp-python {version}"),
        ("sandbox", words(sandbox)),
        ("processor", f"{hardware.processor()}, {_counted(hardware.physical_cores(), 'core')}"),
        ("features", " ".join(info.features) if info else engine.problem or "The engine is asked…"),
        ("devices", "; ".join(_device(device) for device in info.devices) if info else ""),
        ("computes on", f"{loaded.backend}, {_counted(threads, 'thread')}" if loaded else ""),
        ("GPU layers", count(layers) if layers else ""),
        ("memory", f"{size(report.memory)} in use" if report else ""),
    ]


def _device(device: Device) -> str:
    memory = f", {size(device.memory_total)}" if device.kind != "cpu" and device.memory_total else ""
    return f"{device.name} ({device.description}{memory})"


def _model(entry: ModelEntry | None, loaded: Loaded | None) -> list[tuple[str, str]]:
    if entry is None:
        return [("name", "No model is chosen.")]
    manifest = manifest_of(entry)
    rows = [
        ("name", entry.name),
        ("title", entry.title),
        ("type", entry.file_type),
        ("size", size(entry.size)),
    ]
    if loaded is not None:
        trained = f", of {count(loaded.context_trained)} that it was trained for"
        rows += [
            ("parameters", count(loaded.parameters)),
            ("architecture", loaded.architecture),
            ("context", f"{count(loaded.context)} tokens{trained if loaded.context_trained else ''}"),
            ("prompt format", loaded.prompt_format),
        ]
    rows.append(("reasoning", "yes" if entry.reasoning else "no"))
    if manifest is None:
        return [*rows, ("source", "A file of yours, not in the store: nothing tells where it is from.")]
    checked = "verified when it was fetched" if manifest.pinned else "taken when it was added"
    return [
        *rows,
        ("license", manifest.license or "not stated"),
        ("source", describe(manifest.source)),
        ("sha256", f"{manifest.sha256} ({checked})"),
        ("added", manifest.added[:19].replace("T", " ") + " UTC"),
    ]


def manifest_of(entry: ModelEntry) -> Manifest | None:
    """What the store knows of a model; None for a file that is not in it."""
    with suppress(LocalAIError):
        manifest = Store().get(entry.name)
        if (manifest.size, manifest.file_type) == (entry.size, entry.file_type):
            return manifest
    return None


def _conversations(history: History, kept: Kept) -> list[tuple[str, str]]:
    rows = [("protection", _protection(kept))]
    with suppress(LocalAIError):
        conversations, messages = history.count()
        many = f"{_counted(conversations, 'conversation')}, {_counted(messages, 'message')}"
        rows.append(("stored", many))
    if kept != "memory":
        rows += [("file", str(history.path)), ("size", size(_bytes(history.path)))]
    return rows


def _protection(kept: Kept) -> str:
    if kept != "encrypted":
        memory = "Nothing is kept: they are in memory, and gone when the chat ends."
        return memory if kept == "memory" else "Not encrypted: whoever can read the file can read them."
    ways = None
    with suppress(LocalAIError):
        ways = key.protection()
    words = {"keyring": "in the system's keyring", "passphrase": "behind a passphrase"}
    where = " and ".join(words[way] for way in ways.ways) if ways else ""
    return f"Encrypted (SQLCipher 4){f'; the key is {where}' if where else ''}."


def _bytes(path: Path) -> int:
    total = 0
    for end in _BESIDE:
        with suppress(OSError):
            total += path.with_name(path.name + end).stat().st_size
    return total


def _counted(number: int, word: str) -> str:
    return f"{count(number)} {word}" if number == 1 else f"{count(number)} {word}s"


def _homeless(value: str) -> str:
    home = str(Path.home())
    return value.replace(home + os.sep, "~" + os.sep) if len(home) > 1 else value
