"""What the audit comes to: one sentence, and one line for each area. The first things that its text shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localai.audit.advisories import Advisories
    from localai.audit.finding import Area
    from localai.audit.program import EngineFacts
    from localai.audit.proof import Proof
    from localai.audit.report import Report


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
    return told + (f"; {count} finding{'s' if count > 1 else ''}" if count else "")


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
    hashed = sum(one.verified is not None for one in found.models)
    told = f"{len(found.models)}" + (f", {wrong} damaged" if wrong else "")
    return f"{told}, {hashed} hashed now" if hashed else f"{told}, not hashed now (--verify does that)"
