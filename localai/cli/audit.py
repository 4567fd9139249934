"""`localai audit`: the report for a security officer, on a screen or as JSON, and the list of all parts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options, output
from localai.errors import LocalAIError

if TYPE_CHECKING:
    from localai.audit.proof import Proof, Request
    from localai.audit.report import Report


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

    Proves that the engine cannot reach the network, files or other programs: it answers a question in the
    sandbox, then attacks from within it, and counts packets. Changes nothing and uses no network.
    """
    output.require_stdout()
    if sbom is not None:
        _write_sbom(sbom)
        return
    from localai.audit import report

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
        _print(found)
    if strict and found.findings:
        raise typer.Exit(1)


def _request(model: str | None) -> Request:
    from localai.audit.proof import Request
    from models.store import Store

    store = Store()
    chosen = store.default() if model is None else None
    if model is None and chosen is None:
        return Request()
    resolved = store.resolve(model if chosen is None else chosen.name)  # type: ignore[arg-type]
    digest = resolved.manifest.sha256 if resolved.manifest and not resolved.manifest.parts else ""
    return Request(model=str(resolved.path.absolute()), sha256=digest)


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


def _print(found: Report) -> None:
    _print_program(found)
    _print_advisories(found)
    _print_models(found)
    _print_sandbox(found)
    if found.proof is not None:
        _print_proof(found.proof)
    _heading(f"What weakens a protection: {len(found.findings) or 'nothing'}")
    for one in found.findings:
        _line("!", f"{one.what}. {one.do}.")


def _print_program(found: Report) -> None:
    program, engine = found.program, found.engine
    _heading("Program")
    _line("-", f"localai {program.version}, {program.installed}, in {program.folder}")
    _line("-", f"{program.implementation} {program.python} on {program.platform}")
    for package in program.packages:
        _line("-", f"{package.name}: {package.files} files, sha256 {package.sha256}")
    if program.checked:
        same = program.checked - len(program.differing)
        mark = "!" if program.differing else "ok"
        _line(mark, f"{same} of {program.checked} files are as they were installed")
    _heading("Engine")
    _line("-", f"{engine.package} {engine.version}, llama.cpp {engine.commit or 'not running'}")
    _line("-", f"features: {' '.join(engine.features) or 'none'}")
    _line("-", f"GPU backends: {', '.join(engine.gpu_backends) or 'none'}")
    names: dict[tuple[str, bool | None], list[str]] = {}
    for library in engine.libraries:  # a library is there under several names
        names.setdefault((library.sha256, library.as_installed), []).append(library.name)
    for (digest, as_installed), alike in names.items():
        mark = {True: "ok", False: "!", None: "-"}[as_installed]
        _line(mark, f"{', '.join(alike)}: sha256 {digest}")


def _print_advisories(found: Report) -> None:
    known = found.advisories
    _heading(f"Known advisories: {len(known.entries)}, as of {known.checked}, {known.age_days} days ago")
    marks = {"fixed": "ok", "not reachable": "ok", "affected": "!", "not assessed": "!", "not installed": "-"}
    for one in known.entries:
        reason = f": {one.reason}" if one.reason else ""
        _line(marks[one.status], f"{one.id} ({one.component}), {one.title}: {one.status}{reason}")


def _print_models(found: Report) -> None:
    _heading(f"Models: {len(found.models) or 'none'}")
    for one in found.models:
        verified = {True: "verified now", False: "NOT as it was", None: f"last hashed {one.hashed[:10]}"}
        known = "known before it came" if one.pinned else "as it was first seen"
        _line("!" if one.fault else "ok" if one.verified else "-", f"{one.name}: {one.source}")
        _line("", f"license {one.license or 'not stated'}; {verified[one.verified]}; digest {known}")
        _line("", f"sha256 {one.sha256}")


def _print_sandbox(found: Report) -> None:
    from localai.confine.report import words

    _heading(f"Sandbox: {found.sandbox.level}, profile {found.sandbox.profile}, mode {found.sandbox_mode}")
    for layer in found.sandbox.layers:
        _line("ok" if layer.on else "!", layer.name + (f": {layer.detail}" if layer.detail else ""))
    if found.sandbox.level != "full":
        _line("!", words(found.sandbox))
    history = found.history
    ways = _ways(history.protection)
    days = history.retention_days
    _heading("Conversations")
    _line("!" if history.kept == "plain" else "ok", f"stored: {history.kept}, in {history.path}")
    _line("-", f"key: {ways}")
    _line("-", f"kept: {'until deleted' if days is None else f'{days:g} days'}")
    dumps = {0: "none", None: "not known"}.get(history.core_dump_bytes, "possible")
    _line({"none": "ok", "not known": "-"}.get(dumps, "!"), f"dumps of memory: {dumps}")
    _line("!" if history.swap == "unknown" else "ok", f"swap: {history.swap}")
    _heading("Policy" if found.policy.rules else "Policy: none")
    for rule in found.policy.rules:
        _line("-", f"{rule.what} ({rule.file})")
    if found.policy.sha256:
        _line("-", f"sha256 {found.policy.sha256}")


def _print_proof(proof: Proof) -> None:
    _heading(f"Proof: {'passed' if proof.passed else 'FAILED'}")
    if proof.reason:
        _line("!", proof.reason)
    if proof.note:
        _line("-", proof.note)
    if proof.tokens:
        _line("ok", f"{proof.model} generated {proof.tokens} tokens: {proof.generated}")
    if proof.packets is not None:
        what = f"{proof.packets} packets were sent; a packet on purpose was seen as {proof.control_packets}"
        _line("!" if proof.packets or not proof.control_packets else "ok", what)
    provable = [one for one in proof.attacks if one.provable]
    denied = [one for one in provable if one.denied]
    if proof.attacks:
        what = f"{len(denied)} of {len(provable)} attacks that work without the sandbox fail within it"
        _line("ok" if len(denied) == len(provable) else "!", what)
    for one in proof.attacks:
        if not one.denied:
            _line("!", f"{one.name} ({one.concern}): {one.confined}")
    others = [one.name for one in proof.attacks if not one.provable]
    if others:
        _line("-", f"not provable here: {', '.join(others)}")


def _ways(protection: tuple[str, ...] | None) -> str:
    if protection is None:
        return "nothing was chosen yet"
    return ", ".join(protection) or "none: plain, as chosen"


def _heading(text: str) -> None:
    print(f"\n{output.one_line(text)}")


def _line(mark: str, text: str) -> None:
    """One fact, over as many lines of 80 columns as it takes."""
    import textwrap

    words = output.one_line(text)
    print(
        textwrap.fill(
            words, 79, initial_indent=f"  {mark:<3}", subsequent_indent="     ", break_on_hyphens=False
        )
    )
