"""All sections of the audit together, and what in them weakens a protection."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from typing import Final

import msgspec

from localai import policy
from localai.audit import advisories, digests, installed, proof, settings, storage
from localai.audit import program as programs
from localai.audit.advisories import Advisories
from localai.audit.finding import Finding
from localai.audit.installed import Model
from localai.audit.program import EngineFacts, Program
from localai.audit.proof import Proof
from localai.audit.storage import Storage
from localai.confine.report import NOT_STARTED, Sandbox, words
from localai.engine import protocol
from localai.engine.client import Engine
from localai.errors import LocalAIError
from models.library import Library
from models.progress import Progress, silent

FORMAT: Final = 1
_AGAIN: Final = "See to that, then run it again"
_SEE_PROOF: Final = "See what was tried: the section Proof, or `proof` with --json"


class Rule(msgspec.Struct, frozen=True):
    """One thing that a policy demands."""

    what: str
    file: str


class PolicyFacts(msgspec.Struct, frozen=True):
    """The organization's policy."""

    rules: tuple[Rule, ...]
    sha256: str
    """Of the file, or over both; "" without one."""


class Report(msgspec.Struct, frozen=True):
    """What `localai audit --json` prints: see docs/json.md."""

    format: int
    time: str
    """UTC, ISO 8601."""
    program: Program
    engine: EngineFacts
    advisories: Advisories
    models: tuple[Model, ...]
    sandbox: Sandbox
    """Of a worker that was started for this."""
    sandbox_mode: str
    history: Storage
    policy: PolicyFacts
    proof: Proof | None
    """None: it was left out."""
    findings: tuple[Finding, ...]


def gather(
    request: proof.Request | None,
    *,
    verify: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
    on_progress: Progress = silent,
    clock: Callable[[], datetime.date] = advisories.today,
) -> Report:
    """Look at everything. `request`: what to prove the sandbox with; None: no proof. LocalAIError."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    on_step("looking at the program and its engine")
    ours = programs.program()
    info, sandbox, error = asyncio.run(_engine())
    engine = programs.engine(info, error)
    known = advisories.judged(engine.commit, clock=clock)
    library = Library()
    if verify:
        on_step("reading all models")
    lists = policy.current().lists
    models = installed.models(library, lists, verify=verify, now=now, on_progress=on_progress)
    history = storage.storage()
    proved = None
    if request is not None:
        on_step("proving the sandbox with a real answer, and attacks")
        proved = proof.prove(request)
    found = [
        *programs.findings(ours, engine),
        *advisories.findings(known),
        *installed.findings(models, library),
        *_sandbox(sandbox, proved),
        *storage.findings(history),
        *settings.findings(clock=clock),
        *_open_policy(),
    ]
    return Report(
        format=FORMAT,
        time=now,
        program=ours,
        engine=engine,
        advisories=known,
        models=models,
        sandbox=sandbox,
        sandbox_mode=policy.sandbox_mode(),
        history=history,
        policy=_policy(),
        proof=proved,
        findings=tuple(found),
    )


async def _engine() -> tuple[protocol.EngineInfo | None, Sandbox, str]:
    engine = Engine()
    try:
        return await engine.describe(), engine.sandbox, ""
    except LocalAIError as error:
        return None, engine.sandbox, str(error)
    finally:
        await engine.close()


def _policy() -> PolicyFacts:
    return PolicyFacts(tuple(Rule(*rule) for rule in policy.describe()), policy.fingerprint())


def _open_policy() -> list[Finding]:
    """Of the files that are in force: who may write to one, or to its folder, decides what it says."""
    files = policy.current().files
    opened = digests.writable_by_others([one for path in files for one in (path, path.parent)])
    what = "others may change the policy, by their rights on {}"
    return [
        Finding("policy", what.format(path), f"Take them: chmod go-w {path}, or chown") for path in opened
    ]


def _sandbox(sandbox: Sandbox, proved: Proof | None) -> list[Finding]:
    found = []
    switched_off = policy.sandbox_mode() == "off"  # of which `settings` tells
    if sandbox != NOT_STARTED and sandbox.level != "full" and not switched_off:
        what = f"the sandbox of the engine is {words(sandbox)}"
        found.append(Finding("sandbox", what, "--sandbox require loads no model without a full one"))
    if proved is not None and not proved.passed:
        found.append(
            Finding(
                "proof",
                f"the proof failed: {proved.reason}",
                _SEE_PROOF if proved.attacks else _AGAIN,
            )
        )
    return found
