"""What can be made of the models that were found: under which name they can be added, or why they cannot."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from localai.errors import (
    IntegrityError,
    LocalAIError,
    ModelNotFound,
    StoreError,
    UnsupportedModel,
    UsageError,
)
from models.catalog import Entry
from models.gguf import read_header
from models.header import Header, printable
from models.manifest import Manifest
from models.names import is_name, nearest, suggested
from models.origins import About, HubFile, LocalFile, ReadySource
from models.parts import read_whole, stem_of
from models.programs.found import Found
from models.programs.writers import being_written
from models.progress import Progress, silent
from models.store import Store
from models.supported import ARCHITECTURES

_FALLBACK: Final = "model"
_LONGEST_PART: Final = 64


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A model of another program's, looked into."""

    found: Found
    name: str
    """What it is called in the store, or would be."""
    type: str = ""
    """Such as "Q4_K_M"; "" if it cannot be read."""
    architecture: str = ""
    stored: bool = False
    """Whether the store has it already."""
    catalogue: str = ""
    """The entry of the catalogue of which it is the very file."""
    problem: str = ""
    """Why it cannot be added, as the end of a sentence about it; "" if it can."""

    @property
    def can_be_added(self) -> bool:
        """Whether it is a model that runs here and is not in the store yet."""
        return self.found.kind == "gguf" and not self.problem and not self.stored


def offers(
    found: Iterable[Found], store: Store, entries: Sequence[Entry], allow: Collection[str] = ()
) -> list[Offer]:
    """What can be made of each, in the same order. `allow`: architectures beside those of R1's family."""
    manifests = store.manifests()
    known = _digests(entries)
    taken = {model.name for model in manifests}
    result: list[Offer] = []
    for one in found:
        stored = next((model for model in manifests if _is_stored(one, model, store)), None)
        header, problem = _look(one, allow)
        catalogue, listed = known.get(one.sha256, ("", ""))
        name = stored.name if stored else _free(listed or _suggested(one, header), taken)
        taken.add(name)
        result.append(
            Offer(
                found=one,
                name=name,
                type=header.file_type if header else "",
                architecture=header.architecture if header else "",
                stored=stored is not None,
                catalogue=catalogue,
                problem=problem,
            )
        )
    return result


def addable(available: Iterable[Offer]) -> list[Offer]:
    """Those that can be added, and of those that are known to be the same bytes only the first."""
    known: set[str] = set()
    result = []
    for offer in available:
        if offer.can_be_added and (not offer.found.sha256 or offer.found.sha256 not in known):
            known.add(offer.found.sha256)
            result.append(offer)
    return result


def chosen(available: Sequence[Offer], text: str) -> Offer:
    """The offer that the user means by its name, or by what its program calls it.

    ModelNotFound if there is none.
    """
    wanted = text.lower()
    named = [one for one in available if one.name == wanted]
    named = named or [one for one in available if one.found.called.lower() == wanted]
    if not named:
        close = nearest(text, [one.name for one in available if one.can_be_added])
        hint = (
            f"Did you mean {' or '.join(close)}?" if close else "See what there is: localai models discover"
        )
        raise ModelNotFound(f"No model called {printable(text)!r} was found", hint)
    return named[0]


def add(
    offer: Offer,
    store: Store,
    entries: Sequence[Entry],
    allow: Collection[str] = (),
    on_progress: Progress = silent,
) -> Manifest:
    """Add it to the store without copying it, after hashing: the digest must be the one its program tells.

    UsageError for a checkpoint, StoreError if the store has it, UnsupportedModel if it cannot be used, and
    the errors of `Store.adopt`.
    """
    one = offer.found
    if one.kind == "checkpoint":
        raise UsageError(
            f"{one.called} is a checkpoint and not a model file yet", f"Quantize it: {quantize_command(one)}"
        )
    if offer.stored:
        raise StoreError(f"{one.called} of {one.program} is in the store already, as {offer.name}")
    if offer.problem:
        raise UnsupportedModel(
            f"{one.called} of {one.program} cannot be added: {offer.problem}", _hint(offer)
        )
    about = next((entry.about for entry in entries if entry.name == offer.catalogue), About())
    source = LocalFile(path=str(one.paths[0]), program=one.program, called=one.called)
    try:
        return store.adopt(
            one.paths,
            offer.name,
            source=source,
            about=about,
            expect_sha256=one.sha256 or None,
            allow=allow,
            on_progress=on_progress,
        )
    except IntegrityError as error:
        raise IntegrityError(
            f"{one.called} of {one.program} is damaged: the sha256 of {one.paths[0]} is not {one.sha256}",
            f"Fetch it again with {one.program}.",
        ) from error


def _hint(offer: Offer) -> str:
    other = offer.architecture and offer.architecture not in ARCHITECTURES
    if other and offer.architecture.replace("-", "").replace("_", "").isalnum():
        return f"To try it all the same: --allow-architecture {offer.architecture}"
    return f"It is {offer.found.paths[0]}"


def quantize_command(found: Found) -> str:
    """The command that makes a model of a checkpoint, to be typed into a shell."""
    return f"localai quantize {shlex.quote(str(found.paths[0]))}"


def _look(found: Found, allow: Collection[str]) -> tuple[Header | None, str]:
    """The header of the model's files if they can be read, and what is wrong with the model."""
    if found.kind == "checkpoint" or found.problem:
        return None, found.problem
    if any(being_written(path) for path in found.paths):
        return None, "another program is still writing it"
    path = found.paths[0]
    try:
        return read_whole(path, allow), ""
    except LocalAIError as error:
        problem = printable(error.message.replace(f"{path} ", "it ", 1))
    try:
        return read_header(path), problem
    except LocalAIError:
        return None, problem


def _digests(entries: Iterable[Entry]) -> dict[str, tuple[str, str]]:
    """By sha256 the entry that has it as a ready-made file, and what to call it."""
    known: dict[str, tuple[str, str]] = {}
    for entry in entries:
        for ready in entry.file:
            if sha256 := _sha256(ready.source):
                usual = ready.type == entry.type
                name = entry.name if usual else f"{entry.name}:{ready.type.lower()}"
                known.setdefault(sha256, (entry.name, name))
    return known


def _sha256(source: ReadySource) -> str:
    if isinstance(source, HubFile):
        return source.files[0].sha256 if len(source.files) == 1 else ""
    return source.sha256


def _is_stored(found: Found, model: Manifest, store: Store) -> bool:
    """Whether the store has the same bytes, as far as can be told without reading them."""
    if found.kind == "checkpoint" or model.size != found.size:
        return False
    if found.sha256:
        return found.sha256 == model.sha256
    if isinstance(model.source, LocalFile) and model.source.path == str(found.paths[0]):
        return True
    with suppress(LocalAIError, OSError):
        return store.path(model).samefile(found.paths[0])
    return False


def _suggested(found: Found, header: Header | None) -> str:
    """A name from what the program calls it, from its file or from what it calls itself."""
    candidates = [found.called.rpartition("/")[2].removesuffix(":latest"), header.name if header else ""]
    for text in candidates:
        with suppress(UsageError):
            return suggested(stem_of(text))
    return _FALLBACK


def _free(name: str, taken: Collection[str]) -> str:
    """`name`, or with a number if it is taken."""
    if name not in taken:
        return name
    begin, colon, last = name.rpartition(":")
    for number in range(2, len(taken) + 3):
        end = f"-{number}"
        other = f"{begin}{colon}{last[: _LONGEST_PART - len(end)].rstrip('._-')}{end}"
        if other not in taken and is_name(other):
            return other
    raise StoreError(f"No name is free that is like {name}", "Rename a model: localai models rename")
