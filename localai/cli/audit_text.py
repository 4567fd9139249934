"""What `localai audit` shows to people: the verdict and one line for each area first, the details below.

The first screen (24 lines of 80 columns) is for who has two minutes: whether it was proved, what weakens a
protection, and what to do about it. Marks: `ok`: as it should be; `!`: wants attention; `-`: a fact.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from localai.cli import output

if TYPE_CHECKING:
    from localai.audit.advisories import Advisories
    from localai.audit.finding import Area
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
        _line("!", f"{one.what}. {one.do}.")
    print("\n" + "-" * _WIDTH + "\nDetails")
    _print_proof(found.proof)
    _print_sandbox(found)
    _print_program(found)
    _print_engine(found.engine)
    _print_advisories(found.advisories)
    _print_models(found)
    _print_conversations(found)
    _print_policy(found)


def verdict(found: Report) -> str:
    """The answer to the question for which people run this, one sentence without its full stop."""
    sandbox, proof, count = found.sandbox, found.proof, len(found.findings)
    if not found.engine.commit:
        told = "NOTHING is known of the engine, for it did not start"
    elif sandbox.level == "none":
        told = f"the engine is NOT CONFINED: {sandbox.why}"
    elif sandbox.level == "partial":
        told = "the engine is confined only IN PART"
    elif proof is not None and not proof.passed:
        told = "the engine should be fully confined, but that was NOT PROVED"
    else:
        told = "the engine is fully confined, " + ("and that was proved" if proof else "not proved this time")
    return told + (f"; {count} thing{'s' if count > 1 else ''} to look at" if count else "")


def summary(found: Report) -> Iterator[tuple[str, str, str]]:
    """One line for each area: its mark, its name, and what is to be said of it."""
    weak = {one.area for one in found.findings}

    def mark(area: Area, otherwise: str = "ok") -> str:
        return "!" if area in weak else otherwise

    program, engine, history = found.program, found.engine, found.history
    yield mark("proof", "ok" if found.proof else "-"), "Proof", _proof_in_short(found.proof)
    sandbox = found.sandbox.level
    asked = f"{sandbox} (--sandbox {found.sandbox_mode})"
    yield mark("sandbox", "ok" if sandbox == "full" else "!"), "Sandbox", asked
    yield mark("program"), "Program", f"{program.version}, {_as_installed(found)}"
    yield mark("engine"), "Engine", _engine_in_short(engine)
    yield mark("advisories"), "Advisories", _advisories_in_short(found.advisories)
    yield mark("models", "ok" if found.models else "-"), "Models", _models_in_short(found)
    days = "until deleted" if history.retention_days is None else f"{history.retention_days:g} days"
    yield mark("history"), "Conversations", f"stored: {history.kept}; kept: {days}"
    yield mark("environment"), "Environment", "see below" if "environment" in weak else "nothing weakens it"
    rules = len(found.policy.rules)
    yield mark("policy", "-"), "Policy", f"in force: {rules}" if rules else "none"


def _proof_in_short(proof: Proof | None) -> str:
    if proof is None:
        return "left out (--no-proof)"
    if not proof.attacks:
        return "failed"
    provable = [one for one in proof.attacks if one.provable]
    denied = sum(one.denied for one in provable)
    packets = "packets not counted" if proof.packets is None else f"{proof.packets} packets sent"
    return f"{proof.model} answered; {denied} of {len(provable)} attacks denied; {packets}"


def _as_installed(found: Report) -> str:
    program = found.program
    if program.checked:
        same = program.checked - len(program.differing)
        return f"{same} of {program.checked} files as installed"
    return "installed without a list" if program.installed == "wheel" else "runs from a working copy"


def _engine_in_short(engine: EngineFacts) -> str:
    if not engine.commit:
        return "could not be started"
    states = [one.as_installed for one in engine.libraries]
    files = f"{states.count(True)} of {len(states)} libraries as installed"
    return f"llama.cpp {engine.commit}, {files}"


def _advisories_in_short(known: Advisories) -> str:
    states = [one.status for one in known.entries]
    count = {status: states.count(status) for status in ("affected", "not assessed")}
    told = ", ".join(f"{number} {status}" for status, number in count.items() if number)
    return f"{len(states)} known on {known.checked}, {known.age_days} days ago: {told or 'none applies here'}"


def _models_in_short(found: Report) -> str:
    if not found.models:
        return "none"
    wrong = sum(bool(one.fault) or one.verified is False for one in found.models)
    verified = sum(one.verified is True for one in found.models)
    told = f"{len(found.models)}, {wrong} damaged" if wrong else f"{len(found.models)}"
    return f"{told}, {verified} hashed now" if verified else f"{told}, not hashed now (--verify does that)"


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
    for one in known.entries:
        reason = f": {one.reason}" if one.reason else ""
        _line(_STATUS.get(one.status, "!"), f"{one.id} ({one.component}), {one.title}: {one.status}{reason}")
        if one.unconfirmed:
            _line("", f"not confirmed: {one.unconfirmed}")


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
    for layer in found.sandbox.layers:
        _line("ok" if layer.on else "!", layer.name + (f": {layer.detail}" if layer.detail else ""))
    if found.sandbox.level != "full":
        _line("!", words(found.sandbox))


def _print_conversations(found: Report) -> None:
    history = found.history
    days = history.retention_days
    _heading("Conversations")
    _line("!" if history.kept == "plain" else "ok", f"stored: {history.kept}, in {history.path}")
    _line("-", f"key: {_ways(history.protection)}")
    _line("-", f"kept: {'until deleted' if days is None else f'{days:g} days'}")
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
