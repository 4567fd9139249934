"""What `localai models pull` does once it is clear what is wanted: tell, fetch, quantize, keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from localai.cli import output
from localai.cli.pull import tell
from localai.errors import IntegrityError, LoadError, ModelNotFound, UsageError
from models.origins import Builtin, Checkpoint, HubCheckpoint, describe
from models.store import Bytes

if TYPE_CHECKING:
    from models.catalog import Wanted
    from models.header import Header
    from models.sources import Plan, Request
    from models.store import Manifest, Store
    from models.verdict import Verdict


class _Enough(Exception):
    """All that was asked for is known: nothing needs to be fetched."""


class Work:
    """One pull. `anyway`: also what is too large; `dry_run`: only tell; `accept_change`: see `Request`."""

    def __init__(
        self,
        store: Store,
        *,
        anyway: bool,
        dry_run: bool,
        json: bool,
        accept_change: bool,
        command: str,
    ) -> None:
        """`command`: what goes on with it, behind `localai models`."""
        self._store, self._command = store, command
        self._anyway, self._dry_run, self._json = anyway, dry_run, json
        self._accept_change = accept_change

    def fetch(self, request: Request, wanted: Wanted | None, allow: Sequence[str] | None) -> None:
        """Fetch a ready GGUF file."""
        from models.sources import obtain

        request = msgspec.structs.replace(
            request,
            allow=tuple(allow or ()),
            accept_change=self._accept_change,
            look_only=self._dry_run,
            command=self._command,
        )
        hooks = self._hooks(request.name, wanted)
        hooks.foresee()
        before = self._known(request.name)
        with _resumable(), output.progress() as progress:
            hooks.progress = progress
            try:
                found = obtain(request, self._store, progress, hooks)
            except _Enough:
                found = None
        if found is None:
            hooks.tell()
        elif self._dry_run:
            self._tell_nothing(request.name)
        else:
            if not found.downloaded:
                output.note(
                    f"nothing had to be fetched: the bytes of {found.manifest.name} were here, verified"
                )
            if before is not None and before.sha256 != found.manifest.sha256:
                output.note(
                    f"it took the place of what {before.name} was ({describe(before.source)}). To have both: "
                    f"localai models rename {before.name} OTHER, then localai models restore {before.name}"
                )
            tell(found.manifest, self._json)

    def _known(self, name: str) -> Manifest | None:
        try:
            return self._store.get(name)
        except (ModelNotFound, IntegrityError):
            return None

    def quantize_builtin(self, wanted: Wanted, name: str | None) -> None:
        """Make what is shipped with the program."""
        from models import catalog

        origin = wanted.entry.checkpoint
        if not isinstance(origin, Builtin):
            raise UsageError(f"{wanted.entry.name} is not shipped with the program")
        folder = catalog.builtin_checkpoint(origin.checkpoint)
        called = name or wanted.name
        if self._dry_run:
            self._tell_nothing(called)
            return
        from models.sources import replaceable

        self._store.require_free(called, replace=replaceable(self._store))
        manifest = self._quantize(folder, wanted, name, lambda report: origin)
        tell(manifest, self._json)

    def from_source(self, wanted: Wanted, name: str | None) -> None:
        """Fetch the publisher's own weights and quantize them here."""
        from models.sources import checkpoint, replaceable

        source = wanted.entry.checkpoint
        if not isinstance(source, HubCheckpoint):
            raise UsageError(
                f"Nothing is known of the publisher's own weights of {wanted.entry.name}",
                f"Without --from-source it is fetched ready-made: localai models pull {wanted.name}",
            )
        called = name or wanted.name
        if self._is_made(called, source, wanted.type):
            if self._dry_run:
                self._tell_nothing(called)
                return
            output.note(f"nothing had to be made: {called} is from these weights already")
            tell(self._store.get(called), self._json)
            return
        self._store.require_free(called, replace=replaceable(self._store))
        hooks = self._hooks(called, wanted)
        try:
            with _resumable(), output.progress() as progress:
                hooks.progress = progress
                with checkpoint(
                    called,
                    source,
                    self._store,
                    progress,
                    hooks,
                    accept_change=self._accept_change,
                    look_only=self._dry_run,
                    command=self._command,
                ) as (folder, found):
                    progress.end()

                    def origin(made: Any) -> Checkpoint:
                        return Checkpoint(
                            path="",
                            repository=found.repository,
                            revision=found.revision,
                            recipe=f"--type {wanted.type}",
                            inputs=made.report.inputs,
                            program=_version(),
                            llama_cpp=made.report.llama_cpp_commit,
                        )

                    manifest = self._quantize(folder, wanted, name, origin)
        except _Enough:
            hooks.tell()
            return
        tell(manifest, self._json)

    def _quantize(self, folder: Path, wanted: Wanted, name: str | None, origin: Any) -> Manifest:
        from localai.cli.quantize_output import Events
        from models.sources import replaceable
        from quantize.client import Wanted as Output
        from quantize.client import run
        from quantize.protocol import Job

        with self._store.incoming() as scratch, output.progress() as progress:
            file = scratch / "model.gguf"
            made = run(
                Job(source=str(folder)), [Output(wanted.type, file)], on_event=Events(progress, [wanted.type])
            )
            return self._store.add(
                file,
                name or wanted.name,
                source=origin(made),
                about=wanted.entry.about,
                known=Bytes((made.report.outputs[0].sha256,)),
                move=True,
                replace=replaceable(self._store),
                on_progress=progress,
            )

    def _is_made(self, name: str, source: HubCheckpoint, file_type: str) -> bool:
        """Whether the model was made of these weights already, as it would be made now."""
        try:
            known = self._store.get(name)
        except (ModelNotFound, IntegrityError):
            return False
        made = known.source
        return (
            isinstance(made, Checkpoint)
            and (made.repository, made.recipe) == (source.repository, f"--type {file_type}")
            and source.revision in ("", made.revision)
            and self._store.fault(known) is None
        )

    def _hooks(self, name: str, wanted: Wanted | None) -> _Hooks:
        return _Hooks(name, wanted, anyway=self._anyway, dry_run=self._dry_run, json=self._json)

    def _tell_nothing(self, name: str) -> None:
        """What `--dry-run` says where nothing needs to be fetched."""
        if self._json:
            output.print_json({"name": name, "download_bytes": 0, "installed": True})
        else:
            print(f"Nothing has to be fetched for {name}")


class _Hooks:
    """Tells what is about to be fetched, and stops where it cannot run here."""

    def __init__(self, name: str, wanted: Wanted | None, *, anyway: bool, dry_run: bool, json: bool) -> None:
        self._name, self._wanted = name, wanted
        self._anyway, self._dry_run, self._json = anyway, dry_run, json
        self._plan: Plan | None = None
        self._verdict: Verdict | None = None
        self.progress: output.Progress | None = None

    def note(self, text: str) -> None:
        self._say(text)

    def foresee(self) -> None:
        """What the catalogue alone tells: before the network is asked, and where there is none."""
        if self._wanted is None:
            return
        from localai.cli.fit import judge_entry

        self._verdict = judge_entry(self._wanted.entry, self._wanted.type)
        if self._verdict is not None and not self._dry_run:
            self._require_fit(self._verdict)

    def plan(self, plan: Plan) -> None:
        self._plan = plan
        if not self._dry_run:
            self._say(self._what(plan))
        if self._verdict is not None:
            self._judge(self._verdict)

    def header(self, header: Header) -> None:
        if self._wanted is None:
            self._say(f"Licence, as the file states it: {output.one_line(header.license) or 'not stated'}")
        if self._verdict is None:
            from localai.cli.fit import judge_header

            self._judge(judge_header(header))

    def tell(self) -> None:
        """What `--dry-run` has found out."""
        assert self._plan is not None
        if not self._json:
            print(output.one_line(self._what(self._plan)))
            if self._verdict is not None:
                print(output.one_line(_sentence(self._verdict)))
            return
        resolved = self._plan.resolved
        output.print_json(
            {
                "name": self._name,
                "source": resolved.source,
                "files": resolved.files,
                "download_bytes": resolved.total,
                "arrived_bytes": self._plan.arrived,
                "installed": False,
                "verdict": self._verdict,
            }
        )

    def _judge(self, verdict: Verdict | None) -> None:
        self._verdict = verdict
        if self._dry_run:
            raise _Enough
        if verdict is not None:
            self._require_fit(verdict)
            self._say(_sentence(verdict))

    def _require_fit(self, verdict: Verdict) -> None:
        if verdict.kind == "too large" and not self._anyway:
            raise LoadError(
                f"{self._name} is too large for this machine. {verdict.why}".rstrip("."),
                f"{verdict.alternative} Or fetch it all the same with --anyway".strip(),
            )

    def _what(self, plan: Plan) -> str:
        resolved = plan.resolved
        source = resolved.source
        where = (
            describe(source)
            if not isinstance(source, HubCheckpoint)
            else (f"the publisher's own weights, {source.repository} at commit {source.revision}")
        )
        total = output.size(resolved.total) if resolved.total else "an unknown number of bytes"
        rest = f"; {output.size(plan.arrived)} of the {total} are here" if plan.arrived else ""
        entry = self._wanted.entry if self._wanted else None
        licence = f" Licence: {entry.license}. {entry.base_license}".rstrip() if entry else ""
        return f"{self._name}: {total} from {where}{rest}.{licence}"

    def _say(self, text: str) -> None:
        if self.progress is not None:
            self.progress.end()
        output.note(text)


def _sentence(verdict: Verdict) -> str:
    """What comes of it, how fast, and what would be better if it is not good."""
    speed = verdict.speed
    pace = ""
    if verdict.tokens_per_s:
        low, high = output.rate(speed.slowest), output.rate(speed.fastest)
        pace = f"About {output.rate(verdict.tokens_per_s)} ({low}-{high}) tokens a second, an estimate."
    return " ".join(part for part in (verdict.why, verdict.gpu, pace, verdict.alternative) if part)


@contextmanager
def _resumable() -> Iterator[None]:
    """Whoever stops it should know that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        output.note("what has come is kept: the same command goes on from there")
        raise


def _version() -> str:
    from localai import __version__

    return __version__
