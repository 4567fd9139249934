"""The live proof: a real answer from a confined worker, no packet meanwhile, and attacks from within it.

Run as `python -P -m localai.audit.proof`, with a `Request` on standard input, which is answered by a `Proof`
on standard output, both as JSON. It is a process of its own, for it moves to a network of its own, and
attacks are what the app forbids itself. Each attack is first tried by a worker without a sandbox: what that
one cannot do proves nothing, and is called not provable here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from localai import processes, selftest
from localai.audit import namespace
from localai.chat.messages import ChatMessage
from localai.confine import attacks
from localai.confine.report import NOT_STARTED, Sandbox
from localai.engine import protocol
from localai.engine.client import SILENCE_S, STALL_BEATS, WORKER, Engine
from localai.engine.pipe import Patience, WorkerPipe
from localai.engine.settings import LoadOptions
from localai.errors import LocalAIError
from models import catalog
from quantize.client import Wanted
from quantize.client import run as quantize
from quantize.protocol import Job

MODULE: Final = "localai.audit.proof"
QUESTION: Final = "What is 47 + 85?"
TOKENS: Final = 32
"""Generated at most: enough to show that it works, also for a large model on a slow machine."""
FEWEST: Final = 25
"""So many attacks must be possible without a sandbox; fewer prove too little."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to prove it with."""

    model: str = ""
    """A GGUF file; "": r1-nano, which is shipped with the program, quantized for this."""
    name: str = ""
    """For people; "": that of its file."""
    sha256: str = ""
    command: tuple[str, ...] = ()
    """Starts the worker that is tested; none: the program's own. Tests put one with a hole there."""


class Tried(msgspec.Struct, frozen=True):
    """One attack, without and within the sandbox."""

    name: str
    concern: str
    control: str
    """What came of it without a sandbox: "done" or what it got, or how the system itself denied it."""
    confined: str
    """What came of it within the sandbox."""
    provable: bool
    """Whether it succeeded without a sandbox."""
    denied: bool


class Proof(msgspec.Struct, frozen=True):
    """What was proved."""

    passed: bool
    reason: str
    """Why it did not pass; "" if it did."""
    model: str = ""
    generated: str = ""
    tokens: int = 0
    namespace: bool = False
    """Whether it ran in a network of its own; only there can packets be counted."""
    packets: int | None = None
    """Sent while the model was loaded, answered, and attacked; None: not counted."""
    control_packets: int = 0
    """That the counter saw when one was sent on purpose."""
    sandbox: Sandbox = NOT_STARTED
    attacks: tuple[Tried, ...] = ()
    changed: tuple[str, ...] = ()
    """Files that the attacks from within the sandbox have changed, as seen from outside of it."""
    note: str = ""
    """What limits the proof; "" if nothing does."""


def prove(request: Request) -> Proof:
    """Have a process of its own do it; raises nothing for what it finds."""
    done = subprocess.run(
        processes.worker_command(MODULE),
        input=msgspec.json.encode(request),
        capture_output=True,
        env=processes.environment(),
        check=False,
    )
    try:
        return msgspec.json.decode(done.stdout, type=Proof)
    except msgspec.MsgspecError:
        ended = processes.describe_exit(done.returncode, done.stderr.decode("utf-8", "replace"))
        return Proof(passed=False, reason=f"the proof did not come to its end: {ended}")


async def run(request: Request, folder: Path, *, counted: bool, note: str = "") -> Proof:
    """Prove it in this process; `folder` is empty. LocalAIError, OSError: it could not be tried."""
    model = Path(request.model) if request.model else _nano(folder)
    control_packets = _control_packets() if counted else 0
    with attacks.prepare(folder / "targets", traceable=True) as targets:
        untouched = attacks.state(folder / "targets")
        control = await _unconfined(targets)
        seen = attacks.changed(untouched, attacks.state(folder / "targets"))
    with attacks.prepare(folder / "again", traceable=True) as targets:
        engine = Engine(request.command or None, reads=(targets.model,))
        untouched = attacks.state(folder / "again")
        before = namespace.packets() if counted else 0
        try:
            await engine.load(
                model, LoadOptions(context=512), sha256=request.sha256, made_here=not request.model
            )
            text, tokens = await _answer(engine)
            outcomes = _decoded(await engine.attack(msgspec.msgpack.encode(targets)))
        finally:
            await engine.close()
        sent = namespace.packets() - before if counted else None
        changed = attacks.changed(untouched, attacks.state(folder / "again"))
    tried = _compared(control, outcomes)
    reason = _judged(tokens, tried, sent, control_packets, engine.sandbox)
    if not reason and len(tried) < len(control):
        reason = f"the worker did not tell of {len(control) - len(tried)} attacks"
    # What a worker says of itself is not all that counts: its victims are looked at, too.
    if changed or not seen:
        reason = reason or (f"the worker changed {', '.join(changed)}" if changed else "no change was seen")
    return Proof(
        passed=not reason,
        reason=reason,
        changed=changed,
        model=request.name or model.name,
        generated=text,
        tokens=tokens,
        namespace=counted,
        packets=sent,
        control_packets=control_packets,
        sandbox=engine.sandbox,
        attacks=tried,
        note=note,
    )


def _nano(folder: Path) -> Path:
    output = folder / "r1-nano-Q8_0.gguf"
    quantize(Job(source=str(catalog.builtin_checkpoint("r1-nano"))), [Wanted("Q8_0", output)], load=False)
    return output


def _control_packets() -> int:
    before = namespace.packets()
    namespace.send_one()
    return namespace.packets() - before


async def _unconfined(targets: attacks.Targets) -> Sequence[attacks.Outcome]:
    """What a worker without a sandbox gets, in which no model ever is."""
    worker = await WorkerPipe.start(processes.worker_command(WORKER), Patience(SILENCE_S, STALL_BEATS))
    try:
        with worker.open(0) as inbox:
            await worker.send(protocol.Confine("off"))
            while not isinstance(await inbox.get(), protocol.Confined):
                pass
        with worker.open(1) as inbox:
            await worker.send(protocol.Attack(1, msgspec.msgpack.encode(targets)))
            while not isinstance(event := await inbox.get(), protocol.Attacked):
                pass
            return _decoded(event.outcomes)
    finally:
        worker.post(protocol.Shutdown())
        await worker.end(1)


async def _answer(engine: Engine) -> tuple[str, int]:
    messages = [ChatMessage("user", QUESTION)]
    thinking, answer, done = await selftest.collect(engine, messages, max_tokens=TOKENS)
    return (answer or thinking).strip(), done.usage.completion_tokens


def _decoded(outcomes: bytes) -> list[attacks.Outcome]:
    return msgspec.msgpack.decode(outcomes, type=list[attacks.Outcome])


def _compared(control: Sequence[attacks.Outcome], confined: Sequence[attacks.Outcome]) -> tuple[Tried, ...]:
    before = {outcome.name: outcome for outcome in control}
    return tuple(
        Tried(
            name=one.name,
            concern=str(one.concern),
            control=before[one.name].detail,
            confined=one.detail,
            provable=not before[one.name].denied and one.available,
            denied=one.denied,
        )
        for one in confined
        if one.name in before
    )


def _judged(
    tokens: int, tried: Sequence[Tried], sent: int | None, control_packets: int, sandbox: Sandbox
) -> str:
    """Why it is no proof; "" if it is one."""
    succeeded = [one.name for one in tried if not one.denied]
    if not tokens:
        return "the model said nothing"
    if succeeded:
        shown = ", ".join(succeeded[:5]) + (" ..." if succeeded[5:] else "")
        return f"{len(succeeded)} attacks succeeded from within the worker: {shown}"
    if sandbox.level != "full":
        return f"the sandbox is {sandbox.level}"
    if sum(one.provable for one in tried) < FEWEST:
        return "too few attacks are possible here even without a sandbox"
    if sent:
        return f"{sent} packets were sent"
    if sent is not None and not control_packets:
        return "the counter did not see a packet that was sent on purpose"
    return ""


def _own_network() -> tuple[bool, str]:
    """Move to a network of its own: (whether packets can be counted there, why not)."""
    if str(sys.platform) != "linux":
        return False, "packets were not counted: that is only known for Linux"
    try:
        namespace.enter()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return False, f"packets were not counted: this system allows no network of its own ({why})"
    return True, ""


def main() -> None:
    """Entry point of the process."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    counted, note = _own_network()
    try:
        with tempfile.TemporaryDirectory(prefix="localai-audit-", ignore_cleanup_errors=True) as folder:
            found = asyncio.run(run(request, Path(folder), counted=counted, note=note))
    except (LocalAIError, OSError) as error:
        found = Proof(passed=False, reason=f"it could not be tried: {error}", namespace=counted, note=note)
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.json.encode(found))
        sys.stdout.flush()
    os._exit(0)  # an attack may have left a thread


if __name__ == "__main__":
    main()
