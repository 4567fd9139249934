"""The files that are measured: made in one reading for each group, without names, and gone afterwards.

The one that is advised can be given its place: its bytes are those that `localai quantize` makes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from localai.comparison.selection import Reference, Selection, groups
from localai.evaluation.run import Candidate
from models.files import free_bytes
from models.parts import read_whole
from quantize import client
from quantize.client import Made, OnEvent
from quantize.partials import Partial
from quantize.protocol import Candidate as Planned
from quantize.protocol import Job


class File(NamedTuple):
    """A file of one type, and what measures call it."""

    file_type: str
    model: Candidate
    partial: Partial
    made: Made


class Group(NamedTuple):
    """Files that are there at the same time, and what they are compared with."""

    files: list[File]
    reference: Candidate
    number: int
    of: int


@contextmanager
def made(
    job: Job, selection: Selection, reference: Reference, folder: Path, on_event: OnEvent
) -> Iterator[Iterator[Group]]:
    """The groups of files of `selection`, made from `job` on the disk of `folder` when it is their turn.

    Those of a group go when the next one is asked for. Raises as `quantize.client.run` does.
    """
    wanted = groups(selection.types, reference, free_bytes(folder))
    with ExitStack() as stack:
        found = _groups(job, wanted, reference, folder, on_event, stack)
        stack.callback(found.close)
        yield found


def _groups(
    job: Job,
    wanted: Sequence[Sequence[Planned]],
    reference: Reference,
    folder: Path,
    on_event: OnEvent,
    stack: ExitStack,
) -> Generator[Group]:
    compared: Candidate | None = None if reference.made else _source(Path(job.source), reference)
    for number, group in enumerate(wanted, 1):
        with ExitStack() as own:
            types = [one.file_type for one in group]
            partials = [own.enter_context(_partial(folder, one)) for one in types]
            first = [] if compared is not None else [stack.enter_context(_partial(folder, "reference"))]
            names = [reference.file_type for _ in first] + types
            found = client.fill(job, names, [*first, *partials], on_event, plain=len(first))
            written = found.report.outputs
            if compared is None:
                compared = _candidate(first[0], reference.file_type, written[0].sha256)
            files = [
                File(one, _candidate(partial, one, output.sha256), partial, found)
                for one, partial, output in zip(types, partials, written[len(first) :], strict=True)
            ]
            if not reference.made and number == 1:
                compared = compared._replace(sha256=_digest(found, Path(job.source)))
            yield Group(files, compared, number, len(wanted))


@contextmanager
def one_more(job: Job, file_type: str, folder: Path, on_event: OnEvent) -> Iterator[File]:
    """The file of one type, made again: it was measured in a group that has gone."""
    with _partial(folder, file_type) as partial:
        found = client.fill(job, [file_type], [partial], on_event)
        yield File(file_type, _candidate(partial, file_type, found.report.outputs[0].sha256), partial, found)


def _partial(folder: Path, name: str) -> Partial:
    return Partial(folder / f"localai-compare-{name}.gguf", overwrite=True)


def _candidate(partial: Partial, file_type: str, sha256: str) -> Candidate:
    called = f"the {file_type} file"
    return Candidate(partial.path, file_type, read_whole(partial.path), sha256, called, made_here=True)


def _source(path: Path, reference: Reference) -> Candidate:
    return Candidate(path, reference.file_type, read_whole(path))


def _digest(found: Made, source: Path) -> str:
    """Of a source in one file; "" of one in parts, which is then told by samples of it."""
    inputs = found.report.inputs
    return inputs.get(source.name, "") if len(inputs) == 1 else ""
