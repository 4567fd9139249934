"""What is known of how good and how fast models are: measured here, or told by the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from models import catalog, measured
from models.catalog import Entry
from models.figures import Figures
from models.manifest import digest_of_source


class Known:
    """The figures of some files, or of all, as they are when this is made. It reads files."""

    def __init__(self, digests: Iterable[str] | None = None, roots: Sequence[Path] | None = None) -> None:
        """`digests`: of the files that will be asked for, without a catalogue's; None: of all that there are.

        `roots`: of the stores; see `measured.all_of`. UsageError if the user's catalogue cannot be used.
        """
        entries = catalog.entries()
        self._told = {one.sha256: one for entry in entries for one in entry.measured}
        ready = [digest_of_source(file.source) for entry in entries for file in entry.file]
        wanted = None if digests is None else [*digests, *self._told, *ready]
        found = measured.all_of(wanted, roots)
        self._here, self.damaged = found.figures, found.damaged

    def of(self, sha256: str) -> Figures | None:
        """Of the file with that digest; what was measured here comes first. None: nothing is known."""
        here, told = self._here.get(sha256), self._told.get(sha256)
        if here is None or told is None:
            return here or told
        return msgspec.structs.replace(
            here, loss=here.loss or told.loss, answers=here.answers or told.answers
        )

    def of_type(self, entry: Entry, file_type: str, siblings: Iterable[str] = ()) -> Figures | None:
        """Of the file that one gets who asks the catalogue for that type.

        Where it is made here, that is known by what others of its types were compared with: the catalogue's,
        and the files with the digests `siblings`.
        """
        if ready := entry.ready(file_type):
            return self.of(digest_of_source(ready[0].source))
        made = (one.sha256 for one in self._made(entry, siblings) if one.file_type == file_type)
        return next(filter(None, map(self.of, made)), None)

    def types_beside(self, sha256: str) -> dict[str, Figures]:
        """Of the file with that digest and of others that were made of the same, by their type.

        Without an importance matrix. The file may itself be what others were made of.
        """
        own = self.of(sha256)
        loss = own.loss if own else None
        originals = {sha256, loss.reference_sha256 if loss else ""} - {""}
        everything = {**self._told, **self._here}
        found = [one for one in map(self.of, everything) if one and one.loss and not one.imatrix]
        return {one.file_type: one for one in found if one.loss and one.loss.reference_sha256 in originals}

    def _made(self, entry: Entry, siblings: Iterable[str]) -> list[Figures]:
        """Of files that were made of its weights as `pull` makes them: without an importance matrix."""
        alike = [*entry.measured, *filter(None, map(self.of, siblings))]
        originals = {one.loss.reference_sha256 for one in alike if one.loss} - {""}
        found = [one for one in self._here.values() if one.loss and one.loss.reference_sha256 in originals]
        return [one for one in (*entry.measured, *found) if not one.imatrix]
