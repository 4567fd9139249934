"""What the models screen says of a model below its list, and which keys do what with it."""

from __future__ import annotations

import re
import shlex
from typing import Final

from localai.chat.clean import clean_line
from models.figure_words import sentences
from tui.fitting import Fit
from tui.format import left, rate_words, size, when
from tui.jobs import KEPT, Job
from tui.model_entry import ModelEntry

Hint = tuple[str, str, str]
"""A key, what it does, and the action."""
CLOSE: Final[Hint] = ("Esc", "closes", "screen.dismiss(None)")
STOP: Final[Hint] = ("Del", "stops it", "screen.remove")
ENTER, TYPES = "screen.enter", "screen.types"

_HUB: Final = re.compile(r"(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/([^/\s]+/[^/\s]+?)/?")
_REPOSITORY: Final = re.compile(r"[^/\\:@\s.~][^/\\:@\s]*/[^/\\:@\s]+(:[^/:@\s]+)?(@\S+)?")
SHARING: Final = {
    "reflink": "It shares its bytes with {owner}'s file, and stays if that is deleted.",
    "hard link": "It is the same file as {owner}'s, and stays if that one is deleted.",
    "reference": "Its file stays where {owner} has it: if that is deleted, the model is gone.",
}
"""By the manifest's `sharing`: what became of the bytes."""


def told(job: Job) -> str:
    """How far a job is, and what closing and stopping mean for it."""
    if not job.stage:
        return "It begins. You can close this: it goes on."
    parts = [f"{job.stage}: {size(job.done)}" + (f" of {size(job.total)}" if job.total else "")]
    if job.rate:
        parts += [f"{size(job.rate)}/s"] + ([f"about {left(job.left_s)} left"] if job.left_s >= 1 else [])
    kept = " Stopped, it keeps what has come." if job.doing == KEPT else ""
    return f"{', '.join(parts)}. You can close this: it goes on.{kept}"


def unmatched(typed: str) -> str:
    """What to do where no model matches what was typed. Not clean."""
    typed = typed.strip()
    if match := _HUB.fullmatch(typed):
        typed = match[1]
    if typed.startswith(("https://", "http://")):
        command = f"localai models pull {shlex.quote(typed)} --sha256 DIGEST"
        return f"No model here matches. To fetch a file from an address, run this in a terminal: {command}"
    if match := _REPOSITORY.fullmatch(typed):
        quoted, is_whole = shlex.quote(typed), match[1] or match[2]
        how = "" if is_whole else ", with a type such as Q4_K_M for TYPE"
        command = f"localai models pull {quoted}{'' if is_whole else ':TYPE'}"
        return f"No model here matches. To fetch one from the hub, run this in a terminal{how}: {command}"
    return "Nothing matches."


def paragraphs(entry: ModelEntry, fit: Fit | None, gpu: bool, now: float) -> list[str]:
    """What is known of a model that no job is at, a line for each matter. Clean.

    `gpu`: a GPU computes, whose memory is not counted in `fit`.
    """
    if entry.place == "found":
        said = _of_found(entry, fit, gpu)
    elif entry.place == "removed":
        said = _of_removed(entry)
    elif entry.fault:
        said = [f"It cannot be used. {entry.fault}"]
    elif entry.installed:
        said = [_about(entry), _verdict(fit, gpu, entry), measured(entry), _kept(entry, now)]
    else:
        more = [source(entry), licence(entry, short=True)]
        said = [_about(entry), _verdict(fit, gpu, entry), measured(entry), *more]
    return [clean_line(text) for text in said if text]


def hints(entry: ModelEntry) -> list[Hint]:
    """The keys for a model that no job is at."""
    match entry.place:
        case "found" if entry.fault:
            return []
        case "found":
            return [("Enter", "quantizes it" if entry.path else "adds it", ENTER)]
        case "removed":
            return [("Enter", "brings it back", ENTER), ("F8", "frees its disk space", "screen.free")]
        case "available":
            return _to_fetch(entry)
    remove: list[Hint] = [] if entry.shared else [("Del", "removes", "screen.remove")]
    if entry.fault:
        return [("Enter", "fetches again", ENTER), *remove] if entry.fetchable else remove
    return [("Enter", "uses it", ENTER), ("F6", "other types", TYPES), *remove]


def licence(entry: ModelEntry, *, short: bool = False) -> str:
    """Of the weights, and what that of the model below adds; `short`: only which one that is."""
    if not entry.license:
        return ""
    begin, colon, _ = entry.base_license.partition(":")
    return f"Licence: {entry.license}. {f'{begin}.' if short and colon else entry.base_license}".rstrip()


def _to_fetch(entry: ModelEntry) -> list[Hint]:
    if not entry.fetchable:
        return [("F8", "throws it away", "screen.free")]
    does = "goes on" if entry.arrived else "fetches it"
    more = ("F6", "other types", TYPES) if entry.base else ("F8", "throws it away", "screen.free")
    return [("Enter", does, ENTER), *([more] if entry.base or entry.arrived else [])]


def _about(entry: ModelEntry) -> str:
    thinks = "Thinks before it answers." if entry.reasoning else "Does not think before it answers."
    return entry.note or thinks


def measured(entry: ModelEntry, *, short: bool = False) -> str:
    """How fast and how good it was found to be; "": nothing is known. Not clean."""
    return sentences(entry.figures, short=short) if entry.figures else ""


def _verdict(fit: Fit | None, gpu: bool, entry: ModelEntry) -> str:
    if fit is None:
        return ""
    if gpu and fit.verdict:
        return f"{fit.why} The memory of the GPU is not counted here."
    estimated = fit.tokens_per_s and not entry.tokens_per_s
    return f"Writes about {rate_words(fit.tokens_per_s)}. {fit.why}" if estimated else fit.why


def _kept(entry: ModelEntry, now: float) -> str:
    """Where an installed model is, and when it was last used."""
    said = [f"Last used {when(entry.last_used, now)}."] if entry.last_used else []
    if entry.shared:
        said.append("It is in a shared store, which is only read.")
    if entry.sharing in SHARING:
        said.append(SHARING[entry.sharing].format(owner=entry.program or "the user"))
    return " ".join(said)


def source(entry: ModelEntry) -> str:
    """What comes, and from where."""
    if not entry.fetchable or (entry.words and not entry.base):
        return _begun(entry)
    if not entry.download:
        return "It is made here, offline."
    where = f" from {entry.origin}" if entry.origin else ""
    came = f"{size(entry.arrived)} of them are here already." if entry.arrived else ""
    made = "" if entry.ready and not entry.from_source else "It is then made here of these."
    text = f"{size(entry.download)} to download{where}. {came} {made}"
    return " ".join(text.split()) + (" Another process is at it." if entry.elsewhere else "")


def _begun(entry: ModelEntry) -> str:
    """Of a fetch that is not of the catalogue: how far it has come, and what goes on with it."""
    came = f"{size(entry.arrived)} of {size(entry.download) if entry.download else 'a fetch'} are here."
    if entry.elsewhere:
        return f"{came} Another process is at it."
    if not entry.words:
        return f"{came} It goes on with the command that began it: localai models pull."
    return f"{came} It was begun by: localai models {shlex.join(entry.words)}"


def _of_found(entry: ModelEntry, fit: Fit | None, gpu: bool) -> list[str]:
    said = [f"{entry.program} has it, as {entry.title}."]
    if entry.fault:
        return [*said, entry.fault]
    if entry.path:
        return [*said, f"It is a checkpoint, {entry.path}: a model can be made of it."]
    if entry.base:
        said.append(f"It is {entry.base} of the catalogue.")
    return [
        " ".join(said),
        _verdict(fit, gpu, entry),
        "It is added without a second copy, once it is verified.",
    ]


def _of_removed(entry: ModelEntry) -> list[str]:
    held = (
        f"Its {size(entry.frees)} are on the disk until F8 frees them."
        if entry.frees
        else "It takes no space that would become free."
    )
    return [f"Removed. {held}"]
