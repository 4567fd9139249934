"""`localai ask` with an engine that follows a script: what goes where, and how a reply has ended."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from localai.chat.budget import Enlarge, Offer, Shorten
from localai.chat.messages import ChatMessage
from localai.cli import ask
from localai.cli.ask_report import JsonReport, TextReport, remarks
from localai.confine.report import Layer, Sandbox
from localai.engine import protocol
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import ContextOverflow, WorkerDied
from models.manifest import Manifest
from models.origins import LocalFile
from models.store import Resolved

LOADED = protocol.Loaded(
    description="qwen2 1.5B Q8_0",
    architecture="qwen2",
    name="R1",
    file_type="Q8_0",
    parameters=1,
    size=1,
    context=2048,
    context_trained=2048,
    threads=2,
    gpu_layers=0,
    backend="CPU",
    prompt_format="deepseek-r1",
    reasoning=True,
    system_role=False,
    sampling=Sampling(temperature=0.6),
    load_s=0.5,
    vocabulary=100,
    parallel=1,
    kv_type="f16",
    kv_bytes_per_token=1,
    weights_read=1,
    fingerprint="f",
    notes=("fewer layers than asked for",),
)
LOOPING = protocol.Looping(id=1, part="thinking", text="Wait, ", times=4, proposal="answer-now")


def thought(text: str) -> protocol.Thinking:
    return protocol.Thinking(1, text, 1)


def answer(text: str) -> protocol.Answer:
    return protocol.Answer(1, text, 1)


def done(reason: protocol.FinishReason = "stop", **changes: Any) -> protocol.Done:
    usage = protocol.Usage(prompt_tokens=5, cached_tokens=0, completion_tokens=9, thinking_tokens=1234)
    timings = protocol.Timings(prompt_s=0.1, generation_s=0.2, tokens_per_s=40.0, prompt_tokens_per_s=50.0)
    return protocol.Done(1, reason, usage, timings, **changes)


class FakeEngine:
    """Answers with the events that it is made with, and remembers what it was asked."""

    def __init__(self, *events: protocol.GenerationEvent) -> None:
        self.events = events
        self.seen: list[object] = []
        self.sandbox = Sandbox("full", (Layer("landlock", True, "ABI 7"),))
        self.closed = False
        self.names = ("", "")

    async def load(
        self, path: Path, options: LoadOptions, *, sha256: str, name: str, draft_name: str
    ) -> protocol.Loaded:
        self.seen += [path, options, sha256]
        self.names = (name, draft_name)
        return LOADED

    async def generate(
        self, messages: Sequence[ChatMessage], sampling: Sampling, limits: Limits
    ) -> AsyncGenerator[protocol.GenerationEvent, None]:
        self.seen += [list(messages), sampling, limits]
        for event in self.events:
            yield event

    async def close(self) -> None:
        self.closed = True


def question(system: str = "", sha256: str = "") -> ask.Question:
    manifest = Manifest(
        name="r1",
        sha256=sha256,
        size=1,
        title="R1",
        architecture="qwen2",
        file_type="Q8_0",
        parameters=1,
        context_trained=2048,
        license="mit",
        reasoning=True,
        source=LocalFile(path="/r1.gguf"),
        added="2025-01-20T00:00:00+00:00",
    )
    return ask.Question(
        model=Resolved(Path("/r1.gguf"), "r1", manifest if sha256 else None),
        load=LoadOptions(threads=2),
        sampling=Sampling(temperature=0.0),
        limits=Limits(max_tokens=9),
        prompt="What is 2 + 2?",
        system=system,
    )


async def asked(*events: protocol.GenerationEvent) -> None:
    await ask.run(question(), FakeEngine(*events), TextReport())


async def asked_for_json(*events: protocol.GenerationEvent, system: str = "") -> None:
    await ask.run(question(system), FakeEngine(*events), JsonReport("r1"))


async def test_everything_reaches_the_engine() -> None:
    engine = FakeEngine(done())
    await ask.run(question("Be brief.", "ab" * 32), engine, TextReport())
    messages = [ChatMessage("system", "Be brief."), ChatMessage("user", "What is 2 + 2?")]
    assert engine.seen == [
        *(Path("/r1.gguf"), LoadOptions(threads=2), "ab" * 32),
        *(messages, Sampling(temperature=0.0), Limits(max_tokens=9)),
    ]
    assert engine.closed
    assert engine.names == ("r1", "")


async def test_a_file_outside_the_store_has_no_digest() -> None:
    engine = FakeEngine(done())
    await ask.run(question(), engine, TextReport())
    assert engine.seen[2] == ""
    assert engine.names == ("", "")


async def test_the_draft_model_is_called_by_its_name() -> None:
    engine = FakeEngine(done())
    await ask.run(dataclasses.replace(question(), draft_name="r1:1.5b"), engine, TextReport())
    assert engine.names == ("", "r1:1.5b")


def seeded(**load: Any) -> ask.Question:
    options = LoadOptions(threads=2, **load)
    return dataclasses.replace(question(), load=options, sampling=Sampling(seed=7))


async def test_that_a_seed_forbids_drafts_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine(answer("4"), done())
    await ask.run(seeded(draft="/small.gguf", speculate=True), engine, TextReport())
    assert capsys.readouterr().err.count("nothing is drafted with --seed") == 1
    assert engine.seen[1] == LoadOptions(threads=2, speculate=True)  # the draft model is not even loaded
    await ask.run(seeded(draft="/small.gguf", speculate=True), FakeEngine(done()), JsonReport("r1"))
    assert json.loads(capsys.readouterr().out)["notes"][1:] == [ask.SEEDED]


async def test_a_seed_where_nothing_would_be_drafted_anyway(capsys: pytest.CaptureFixture[str]) -> None:
    await ask.run(seeded(draft="/small.gguf", speculate=False), FakeEngine(done()), TextReport())
    await ask.run(seeded(speculate=True), FakeEngine(done()), TextReport())
    assert "drafted" not in capsys.readouterr().err


async def test_a_dead_engine_promises_no_next_question() -> None:
    class Dying(FakeEngine):
        async def generate(
            self, messages: Sequence[ChatMessage], sampling: Sampling, limits: Limits
        ) -> AsyncGenerator[protocol.GenerationEvent, None]:
            yield answer("4")
            raise WorkerDied("the engine stopped", "The next question starts a new one")

    with pytest.raises(WorkerDied) as caught:
        await ask.run(question(), Dying(), TextReport())
    assert (caught.value.message, caught.value.hint) == ("the engine stopped", "Ask again to start a new one")


async def test_notes_thinking_answer(capsys: pytest.CaptureFixture[str]) -> None:
    await asked(thought("Hm."), answer("4"), done())
    out, err = capsys.readouterr()
    assert out == "4\n"
    assert err == "localai: fewer layers than asked for\nHm.\n\n"


async def test_a_loop_is_told_while_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    await asked(thought("Wait, "), LOOPING, thought("wait"), answer("4"), done())
    _, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[1:4] == [
        "Wait, ",
        "localai: the thinking repeats itself: “Wait, ”, 4 times so far. Ctrl+C ends it, --think-budget N "
        "would close it after N tokens",
        "wait",
    ]


async def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    end = done(
        "stop",
        answer="empty",
        think_closed=True,
        stop="END",
        speculated=protocol.Speculated(drafted=8, accepted=5),
    )
    await asked_for_json(thought("Hm."), LOOPING, end, system="Be brief.")
    found = json.loads(capsys.readouterr().out)
    assert found["thinking"] == "Hm."
    assert found["answer_state"] == "empty"
    assert found["think_closed"] is True
    assert found["stop"] == "END"
    assert found["looping"] == {
        "part": "thinking",
        "text": "Wait, ",
        "times": 4,
        "proposal": "answer-now",
    }
    assert found["speculated"] == {"drafted": 8, "accepted": 5}
    assert found["notes"][0] == "fewer layers than asked for"
    assert "no system role" in found["notes"][1]


async def test_json_without_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    await asked_for_json(answer("4"), done())
    found = json.loads(capsys.readouterr().out)
    assert found["looping"] is None
    assert found["notes"] == ["fewer layers than asked for"]


def overflow(*offers: Offer) -> protocol.Overflow:
    return protocol.Overflow(id=1, prompt_tokens=3000, context=2048, over=1208, offers=offers)


@pytest.mark.parametrize("put", [asked, asked_for_json])
async def test_a_question_that_does_not_fit(put: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ContextOverflow) as caught:
        await put(overflow(Enlarge(4096), Shorten(0, 3000, 1208)))
    assert caught.value.message == (
        "the question has 3,000 tokens and the context holds 2,048: with room for a reply that is "
        "1,208 too many"
    )
    assert caught.value.hint == (
        "Give it more room with --context 4096, or shorten the message “What is 2 + 2?” by 1,208 of its "
        "3,000 tokens"
    )
    assert capsys.readouterr().out == ""


async def test_a_question_that_does_not_fit_without_offers() -> None:
    with pytest.raises(ContextOverflow) as caught:
        await asked(overflow())
    assert caught.value.hint == "Shorten it, or give it more room with --context"


NO_ANSWER = "so there is no answer"
CLOSE = "the thinking after N tokens with --think-budget N"


@pytest.mark.parametrize(
    ("end", "lines"),
    [
        (done(), []),
        (done("length"), ["the answer was cut at --max-tokens"]),
        (done("length", answer="empty"), ["the answer was cut at --max-tokens"]),
        (
            done("length", answer="none"),
            [
                f"--max-tokens was reached before the thinking ended, {NO_ANSWER}. "
                f"Allow more of them, or close {CLOSE}"
            ],
        ),
        (
            done("context"),
            ["the answer was cut: the context is full. Give more room with --context"],
        ),
        (
            done("context", answer="none"),
            [
                f"the context was full before the thinking ended, {NO_ANSWER}. "
                f"Give more room with --context, or close {CLOSE}"
            ],
        ),
        (done(answer="none"), [f"the model never ended its thinking, {NO_ANSWER}. Close {CLOSE}"]),
        (done(answer="empty"), ["the model ended without an answer after its thinking"]),
        (done(think_closed=True), ["the thinking was closed after 1,234 tokens (--think-budget)"]),
        (done(stop="END"), ["the answer was ended at the text “END” (--stop)"]),
    ],
)
def test_how_it_ended(end: protocol.Done, lines: list[str]) -> None:
    assert list(remarks(end)) == lines


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (0, "no thinking (--think-budget 0)"),
        (1, "the thinking was closed after 1 token (--think-budget)"),
        (1200, "the thinking was closed after 1,200 tokens (--think-budget)"),
    ],
)
async def test_a_budget_is_told_without_the_tokens_that_close_the_thinking(
    budget: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    end = done(think_closed=True)
    await ask.run(question(), FakeEngine(end), TextReport(Limits(think_budget=budget)))
    assert capsys.readouterr().err.splitlines()[1:] == [f"localai: {words}"]


def test_an_empty_answer_of_a_model_that_does_not_think() -> None:
    usage = protocol.Usage(prompt_tokens=5, cached_tokens=0, completion_tokens=1, thinking_tokens=0)
    end = protocol.Done(1, "stop", usage, done().timings, answer="empty")
    assert list(remarks(end)) == ["the model ended without an answer"]


# ---------------------------------------------------------------------------------------- as real processes

COMMAND = [sys.executable, "-P", "-m", "localai"]


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.skipif(os.name == "nt", reason="the shell")
@pytest.mark.parametrize("words", ["ask MODEL Hi", "ask MODEL Hi --json", "bench MODEL --json"])
def test_an_answer_that_nobody_can_see_is_not_made(nano: Path, words: str) -> None:
    done = shell(f"{' '.join(COMMAND)} {words.replace('MODEL', str(nano))} >&-")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("localai: error: standard output is closed")


@pytest.mark.skipif(os.name == "nt", reason="the shell")
def test_an_answer_that_is_thrown_away_is_made(nano: Path) -> None:
    done = shell(f"{' '.join(COMMAND)} ask {nano} Hi --think-budget 0 --max-tokens 9 > /dev/null")
    assert done.returncode == 0
    assert "localai: no thinking (--think-budget 0)" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(
    "module", ["localai.errors", "localai.cli.output", "typer.core", "typer", "localai.cli.options"]
)
def test_ctrl_c_while_the_program_starts(module: str) -> None:
    """Each moment is that in which a module has just been imported."""
    words = [sys.executable, "-X", "importtime", *COMMAND[1:], "ask"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True)
    assert process.stderr is not None
    while not (line := process.stderr.readline()).rstrip().endswith(f" {module}"):
        assert line
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, said) == (130, ["localai: error: interrupted"])


def test_a_damaged_model_is_called_by_its_name(nano: Path, home: Path) -> None:
    """Its file lies under its digest, which the user has never seen."""
    broken = home / "mine.gguf"
    broken.write_bytes(nano.read_bytes().replace(b"output_norm.weight", b"output_nxrm.weight"))
    run = [*COMMAND, "models", "import", str(broken), "--name", "mine"]
    added = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert added.returncode == 0, added.stderr
    for words in (
        ["ask", "mine", "Hi"],
        ["bench", "mine"],
        ["ask", str(nano), "Hi", "--draft-model", "mine"],
    ):
        done = subprocess.run(
            [*COMMAND, *words],
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 1
        assert "could not load mine" in done.stderr
        assert "blobs" not in done.stderr
