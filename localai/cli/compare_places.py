"""Where the files of a comparison go: those that are measured, the one that is kept, and the report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from localai.cli import options, output
from localai.cli.quantize_work import Work, require_name, require_outside_of_the_store
from localai.errors import UsageError

if TYPE_CHECKING:
    from localai.comparison.files import File
    from localai.comparison.result import Comparison

_REPORTS = (".html", ".htm", ".svg")


class Places:
    """`target` and `name`: where the type that is advised is kept, at most one of them. `report`: a file."""

    def __init__(
        self, work: Work, target: Path | None, name: str | None, report: Path | None, overwrite: bool
    ) -> None:
        """UsageError for places that cannot be."""
        self._work, self._name, self._overwrite = work, name, overwrite
        self._target = None if target is None else options.path(target).absolute()
        self._report = None if report is None else options.path(report).absolute()
        self._scratch: Path | None = None
        self.kept = ""
        """What the file that was kept is called: a path, or a name in the store."""
        self.reported = ""
        """The file of the report that was written."""
        for path in (self._target, self._report):
            if path is not None:
                require_outside_of_the_store(path)
        if self._report is not None and self._report.suffix.lower() not in _REPORTS:
            raise UsageError(f"{report} is neither a page nor a picture", "Call it report.html or report.svg")

    @property
    def keeps(self) -> bool:
        """Whether a file is to be kept."""
        return self._target is not None or self._name is not None

    @property
    def free(self) -> int:
        """Bytes that are free on the disk that all files are made on."""
        from localai import paths
        from models.files import free_bytes

        return free_bytes(paths.models_dir() if self._target is None else self._target)

    def require_free(self, types: list[str]) -> None:
        """UsageError or StoreError if something is in the way, whichever of `types` is kept."""
        from models.store import Store
        from quantize import partials

        wanted = [] if self._target is None else [self._place(self._target, one) for one in types]
        for path in [*wanted, *([] if self._report is None else [self._report])]:
            with partials.system_errors(path):
                partials.require_target(path, self._overwrite)
        if self._report is not None and self._report in wanted:
            raise UsageError(f"{self._report} is to be two files", "Give the report another name")
        if self._name is not None:
            require_name(Store(), self._name, self._overwrite)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """The folder on whose disk the files are made."""
        from models.store import Store

        if self._target is not None:
            yield self._target if _is_folder(self._target) else self._target.parent
            return
        with Store().incoming() as scratch:
            self._scratch = scratch
            yield scratch

    def keep(self, file: File) -> None:
        """Give the file that is advised its place; its bytes are those that `quantize` makes."""
        from models.store import Store
        from quantize.client import Wanted

        if self._target is not None:
            path = self._place(self._target, file.file_type)
            file.partial.keep_as(path, overwrite=self._overwrite)
            self.kept = str(path)
        elif self._scratch is not None and self._name is not None:
            wanted = Wanted(file.file_type, self._scratch / f"{file.file_type}.gguf")
            file.partial.keep_as(wanted.output, overwrite=False)
            with output.progress() as progress:
                self.kept = self._work.keep(Store(), self._name, wanted, file.made, progress)

    def write_report(self, found: Comparison) -> None:
        """The page or the picture, if one is wanted."""
        if self._report is None:
            return
        from localai.comparison import page
        from quantize.partials import Partial

        draw = page.svg if self._report.suffix.lower() == ".svg" else page.html
        with Partial(self._report, overwrite=self._overwrite) as partial:
            with open(partial.fd, "wb", closefd=False) as file:
                file.write(draw(found).encode("utf-8", errors="replace"))
            partial.commit()
        self.reported = str(self._report)

    def _place(self, target: Path, file_type: str) -> Path:
        return target / f"{self._work.stem()}-{file_type}.gguf" if _is_folder(target) else target


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - also for names that cannot be
