"""`localai audit`: the report for a security officer, on a screen or as JSON, and the list of all parts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options, output
from localai.errors import LocalAIError, UsageError

if TYPE_CHECKING:
    from localai.audit.proof import Request
    from models.manifest import Manifest


def audit(
    json: options.Json = False,
    model: Annotated[
        str | None,
        typer.Option(help="The model for the proof. Default: the newest reasoning model, else r1-nano."),
    ] = None,
    prove: Annotated[
        bool, typer.Option("--proof/--no-proof", help="Prove the sandbox with a real answer, and attacks.")
    ] = True,
    verify: Annotated[bool, typer.Option("--verify", help="Hash all models again and compare.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if anything weakens a protection.")
    ] = False,
    sbom: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Only write the list of all parts (SBOM, CycloneDX 1.6 JSON) there; - is standard output.",
            show_default=False,
        ),
    ] = None,
    sandbox: options.Sandbox = None,
) -> None:
    """Report what runs here, where it came from, what confines it, and what weakens any of that.

    Proves that the engine cannot reach the network, files or other programs: it
    answers a question in the sandbox, then attacks from within it, and counts
    packets; where that fails, the exit code is 1. Changes nothing and uses no
    network. The first screen has the verdict.
    """
    output.require_stdout()
    if sbom is not None:
        if json or strict or verify or model:
            raise UsageError("--sbom only writes the list of all parts", "Give it alone")
        _write_sbom(sbom)
        return
    from localai.audit import report
    from localai.cli import audit_text

    request = _request(model) if prove else None
    with output.progress() as progress:
        found = report.gather(
            request,
            verify=verify,
            on_step=lambda step: output.note(f"{step} ..."),
            on_progress=progress,
        )
    if json:
        output.print_json(found)
    else:
        audit_text.show(found)
    unproved = found.proof is not None and not found.proof.passed
    if unproved or (strict and found.findings):
        raise typer.Exit(1)


def _request(model: str | None) -> Request:
    """What to prove it with. Without a model that the policy lets run: the one that is shipped."""
    from localai.audit.proof import Request
    from models.store import Store

    store = Store()
    if model is None:
        chosen = store.default()
        if chosen is None or not _runs(chosen):
            return Request(name="r1-nano")
        model = chosen.name
    resolved = store.resolve(model)
    digest = resolved.manifest.sha256 if resolved.manifest and not resolved.manifest.parts else ""
    return Request(model=str(resolved.path.absolute()), name=resolved.name, sha256=digest)


def _runs(one: Manifest) -> bool:
    from localai import policy

    return policy.current().lists([part.sha256 for part in one.parts] or [one.sha256])


def _write_sbom(where: str) -> None:
    import msgspec

    from localai.audit import sbom

    text = msgspec.json.format(msgspec.json.encode(sbom.document()), indent=2)
    if where == "-":
        sys.stdout.write(text.decode() + "\n")
        return
    try:
        Path(where).write_bytes(text + b"\n")
    except OSError as error:
        raise LocalAIError(f"{where} cannot be written: {error.strerror}", "Name another file") from error
