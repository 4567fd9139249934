"""What `localai audit` shows to people: the verdict and one line for each area first, the details below.

The first screen (24 lines of 80 columns) is for who has two minutes: whether it was proved, what weakens a
protection, and what to do about it. Marks: `ok`: as it should be; `!`: wants attention; `-`: a fact.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from localai.cli import output
from localai.cli.audit_summary import summary, verdict

if TYPE_CHECKING:
    from localai.audit.advisories import Advisories
    from localai.audit.program import EngineFacts
    from localai.audit.proof import Proof, Tried
    from localai.audit.report import Report

_WIDTH: Final = 79
_INSTALLED: Final = {True: "ok", False: "!", None: "-"}
_STATUS: Final = {"fixed": "ok", "not reachable": "ok", "not installed": "-"}


def show(found: Report) -> None:
    """Print the whole report."""
    print(f"localai {found.program.version}, looked at on {found.time[:16].replace('T', ' ')} UTC")
    _heading(f"Verdict: {verdict(found)}")
    for mark, area, text in summary(found):
        _line(mark, text, area=f"{area:<15}")
    _heading(f"What weakens a protection: {len(found.findings) or 'nothing'}")
    for one in found.findings:
        _line("!", one.what + (" " if one.what.endswith(".") else ". ") + f"{one.do}.")
    print("\n" + "-" * _WIDTH + "\nDetails")
    _print_proof(found.proof)
    _print_sandbox(found)
    _print_conversations(found)
    _print_policy(found)
    _print_models(found)
    _print_program(found)
    _print_engine(found.engine)
    _print_advisories(found.advisories)  # the longest


def _print_program(found: Report) -> None:
    program = found.program
    _heading("Program")
    _line("-", f"localai {program.version}, {program.installed}, in {program.folder}")
    _line("-", f"{program.implementation} {program.python} on {program.platform}")
    for package in program.packages:
        _line("-", f"{package.name}: {package.files} files, sha256 {package.sha256}")
    if program.checked:
        same = program.checked - len(program.differing)
        mark = "!" if program.differing else "ok"
        _line(mark, f"{same} of {program.checked} files are as they were installed")


def _print_engine(engine: EngineFacts) -> None:
    _heading("Engine")
    _line("-", f"{engine.package} {engine.version}, llama.cpp {engine.commit or 'not running'}")
    _line("-", f"features: {' '.join(engine.features) or 'none'}")
    _line("-", f"GPU backends: {', '.join(engine.gpu_backends) or 'none'}")
    alike: dict[tuple[str, bool | None], list[str]] = {}
    for library in engine.libraries:  # wheels hold no links: a library lies there under several names
        alike.setdefault((library.sha256, library.as_installed), []).append(library.name)
    for (digest, as_installed), names in alike.items():
        copies = f" ({len(names)} copies)" if names[1:] else ""
        _line(_INSTALLED[as_installed], f"{max(names, key=len)}{copies}: sha256 {digest}")


def _print_advisories(known: Advisories) -> None:
    _heading(f"Known advisories: {len(known.entries)}, as of {known.checked}, {known.age_days} days ago")
    plain = [one for one in known.entries if one.status == "fixed" and not one.unconfirmed]
    for one in (one for one in known.entries if one not in plain):
        reason = f": {one.reason}" if one.reason else ""
        _line(_STATUS.get(one.status, "!"), f"{one.id} ({one.component}), {one.title}: {one.status}{reason}")
        if one.unconfirmed:
            _line("", f"not confirmed: {one.unconfirmed}")
    if plain:
        _line("ok", f"fixed (--json tells each and how): {', '.join(one.id for one in plain)}")


def _print_models(found: Report) -> None:
    _heading(f"Models: {len(found.models) or 'none'}")
    for one in found.models:
        verified = {True: "verified now", False: "NOT as it was", None: f"last hashed {one.hashed[:10]}"}
        known = "known before it came" if one.pinned else "as it was first seen"
        _line("!" if one.fault else "ok" if one.verified else "-", f"{one.name}: {one.source}")
        _line("", f"license {one.license or 'not stated'}; {verified[one.verified]}; digest {known}")
        _line("", f"sha256 {one.sha256}")
        if not one.listed:
            _line("", "not on the policy's list: it does not run")


def _print_sandbox(found: Report) -> None:
    from localai.confine.report import words

    _heading(f"Sandbox: {found.sandbox.level}, profile {found.sandbox.profile}, mode {found.sandbox_mode}")
    off = "-" if found.sandbox.level == "full" else "!"  # where it is full, others close the same
    for layer in found.sandbox.layers:
        _line("ok" if layer.on else off, layer.name + (f": {layer.detail}" if layer.detail else ""))
    if found.sandbox.level != "full":
        _line("!", words(found.sandbox))


def _print_conversations(found: Report) -> None:
    history = found.history
    days = history.retention_days
    _heading("Conversations")
    _line("!" if history.kept in ("plain", "unknown") else "ok", f"stored: {history.kept}, in {history.path}")
    _line("-", f"key: {_ways(history.protection)}")
    _line("-", f"kept: {'until deleted' if days is None else f'{days:g} days'}")
    if history.measurements:
        _line("-", f"measured of models, numbers only: {', '.join(history.measurements)}")
    dumps = {0: "none", None: "not known"}.get(history.core_dump_bytes, "possible")
    _line({"none": "ok", "not known": "-"}.get(dumps, "!"), f"dumps of memory: {dumps}")
    _line("!" if history.swap == "unknown" else "ok", f"swap: {history.swap}")


def _print_policy(found: Report) -> None:
    _heading("Policy" if found.policy.rules else "Policy: none")
    for rule in found.policy.rules:
        _line("-", f"{rule.what} ({rule.file})")
    if found.policy.sha256:
        _line("-", f"sha256 {found.policy.sha256}")


def _print_proof(proof: Proof | None) -> None:
    if proof is None:
        return
    _heading(f"Proof: {'passed' if proof.passed else 'FAILED'}")
    if proof.reason:
        _line("!", proof.reason)
    if proof.note:
        _line("-", proof.note)
    if proof.tokens:
        _line("ok", f"{proof.model} generated the {proof.tokens} tokens that it was let: {proof.generated}")
    if proof.packets is not None:
        what = f"{proof.packets} packets were sent; of a test packet the counter saw {proof.control_packets}"
        _line("!" if proof.packets or not proof.control_packets else "ok", what)
    if proof.attacks:
        _print_attacks(proof)


def _print_attacks(proof: Proof) -> None:
    """How many of each kind; those that succeeded, and those that prove nothing here, by name."""
    provable: dict[str, list[Tried]] = {}
    for one in proof.attacks:
        if one.provable:
            provable.setdefault(one.concern, []).append(one)
    _line("-", "attacks that work without the sandbox, and within it:")
    for concern, tried in provable.items():
        done = [one.name for one in tried if not one.denied]
        told = f"{len(done)} SUCCEEDED: {', '.join(done)}" if done else "all denied"
        _line("!" if done else "ok", f"{concern}: {len(tried)}, {told}")
    others = [one for one in proof.attacks if not one.provable]
    for one in (other for other in others if not other.denied):
        _line("!", f"{one.name} ({one.concern}): SUCCEEDED, and only within it: {one.confined}")
    if others:
        _line("-", f"not possible here even without it: {', '.join(one.name for one in others)}")


def _ways(protection: tuple[str, ...] | None) -> str:
    if protection is None:
        return "nothing was chosen yet"
    return ", ".join(protection) or "none: plain, as chosen"


def _heading(text: str) -> None:
    print("\n" + textwrap.fill(output.one_line(text), _WIDTH, break_on_hyphens=False))


def _line(mark: str, text: str, area: str = "") -> None:
    """One fact, over as many lines of 80 columns as it takes; those after the first are indented."""
    first = f"  {mark:<3}{area}"
    lines = textwrap.wrap(output.one_line(text), _WIDTH - len(first), break_on_hyphens=False)
    print(first + f"\n{' ' * len(first)}".join(lines))
