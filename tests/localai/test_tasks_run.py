"""`localai evaluate --tasks` with the real tiny model: what it gets right, keeps, refuses and says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from localai.engine import protocol
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.errors import EngineError, UsageError
from localai.evaluation.run import Candidate
from localai.evaluation.tasks import kept
from localai.evaluation.tasks.run import Plan, Result, Step, run
from localai.evaluation.tasks.sets import QUESTIONS, REASONING, SUMS, named
from models.catalog import builtin_checkpoint
from models.gguf import read_header
from quantize.client import Wanted
from quantize.client import run as quantize
from quantize.protocol import Job
from tests.localai.task_records import record

COMMAND = [sys.executable, "-P", "-m", "localai", "evaluate"]
ONE_THREAD = LoadOptions(threads=1)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """r1-nano with all its matrices at Q2_K."""
    output = tmp_path_factory.mktemp("damaged") / "r1-nano-Q2_K.gguf"
    job = Job(source=str(builtin_checkpoint("r1-nano")), pure=True)
    quantize(job, [Wanted("Q2_K", output)], load=False)
    return output


def candidate(path: Path) -> Candidate:
    return Candidate(path, path.name, read_header(path))


async def asked(path: Path, questions: int = 0, **plan: Any) -> Result:
    engine = Engine()
    try:
        wanted = Plan(tasks=named(SUMS), questions=questions, **plan)
        return await run(engine, candidate(path), ONE_THREAD, wanted)
    finally:
        await engine.close()


def replies(found: Result) -> list[tuple[int, bool, bool, int, bool]]:
    """All but the seconds."""
    return [(one.question, one.right, one.answered, one.tokens, one.cut) for one in found.records]


def evaluated(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


# ------------------------------------------------------------------------------------------- right answers


async def test_the_tiny_model_gets_its_sums_right_and_a_damaged_one_fewer(nano: Path, damaged: Path) -> None:
    good, bad = await asked(nano), await asked(damaged)
    assert (good.answers.set, good.answers.asked) == ("sums", 100)
    assert good.answers.right >= 95
    assert bad.answers.asked == 100
    assert bad.answers.right < 90
    assert all(one.answered and not one.cut and one.tokens > 50 for one in good.records)


async def test_the_same_again_whatever_was_asked_before(nano: Path, damaged: Path, home: Path) -> None:
    first = await asked(damaged, 12)
    kept_in = next((home / "data" / "evaluations").iterdir())
    only_last = [msgspec.msgpack.encode(one) for one in first.records[:11]]
    kept_in.write_bytes(b"".join(len(body).to_bytes(4, "little") + body for body in only_last))
    again = await asked(damaged, 12)
    assert (again.asked_now, first.asked_now) == (1, 12)
    assert replies(again) == replies(first)


async def test_thinking_that_is_cut_is_told(nano: Path) -> None:
    engine = Engine()
    try:
        tasks = msgspec.structs.replace(named(SUMS), limits=named(REASONING).limits)
        plan = Plan(tasks=tasks, questions=2, think_budget=8)
        found = await run(engine, candidate(nano), ONE_THREAD, plan)
    finally:
        await engine.close()
    assert all(one.cut for one in found.records)
    assert found.tasks.limits.think_budget == 8


# --------------------------------------------------------------------------------------------- what is kept


async def test_what_was_asked_is_kept_without_a_word(nano: Path, home: Path) -> None:
    first = await asked(nano, 4)
    (path,) = (home / "data" / "evaluations").iterdir()
    assert path.parent.stat().st_mode & 0o077 == 0 or os.name == "nt"
    content = path.read_bytes()
    assert not any(str(digits).encode() in content for digits in (943, 1255))
    assert b"What is" not in content
    os.truncate(path, len(content) - 3)
    again = await asked(nano, 4)
    assert (first.asked_now, again.asked_now) == (4, 1)
    assert replies(first) == replies(again)
    more = await asked(nano, 5)
    assert more.asked_now == 1
    assert replies(more)[:4] == replies(first)
    assert (await asked(nano, 2)).answers.asked == 2
    assert (await asked(nano, 2, fresh=True)).asked_now == 2


def test_what_is_no_record_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "some.answers"
    kept.add(path, record(0))
    sound = path.read_bytes()
    kept.add(path, record(7, right=False))
    kept.add(path, record(3))
    assert [*kept.load(path, 5)] == [0, 3]
    path.write_bytes(sound + len(b"\x80").to_bytes(4, "little") + b"\x80" + sound)
    assert [*kept.load(path, 5)] == [0]
    assert path.read_bytes() == sound
    assert kept.load(tmp_path / "none.answers", 5) == {}


async def test_cancelled(nano: Path) -> None:
    engine, told = Engine(), list[Result]()
    reached = asyncio.Event()

    def watch(step: Step) -> None:
        if step.done == 3:
            reached.set()

    plan = Plan(tasks=named(SUMS))
    work = asyncio.create_task(run(engine, candidate(nano), ONE_THREAD, plan, watch, told.append))
    await reached.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await engine.close()
    assert [len(found.records) for found in told] == [3]
    assert told[0].asked_planned == 100
    assert (await asked(nano, 4)).asked_now == 1


# -------------------------------------------------------------------------------------------- what is said


def test_beside_a_reference(nano: Path, damaged: Path) -> None:
    words = (damaged, "--reference", nano, "--tasks", "--questions", 8, "--threads", 1)
    report = json.loads(evaluated(*words, "--json").stdout)
    assert (report["asked"], report["asked_planned"], report["asked_now"]) == (8, 8, 16)
    assert (report["model"], report["reference"]) == (damaged.name, nano.name)
    assert (report["file_type"], report["reference_file_type"]) == ("Q2_K", "Q8_0")
    assert report["reference_right"] >= 7
    assert report["set_sha256"] == named(SUMS).sha256
    both = report["compared"]
    assert both["both"] + both["only"] == report["right"] == sum(one["right"] for one in report["questions"])
    assert both["both"] + both["only_reference"] == report["reference_right"]
    assert sum(one["reference_right"] for one in report["questions"]) == report["reference_right"]
    assert report["share_stderr"] > 0
    done = evaluated(*words, "--each")
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line.strip())
    assert lines["right"].strip().startswith(f"{report['right']} of 8: ")
    assert lines["took"].strip().startswith("nothing: it was asked before")
    assert " % +- " in lines["difference"]
    assert done.stdout.splitlines()[0].split() == ["MODEL", "REFERENCE", "TOKENS", "ANSWER", "QUESTION"]
    assert "What is 943 + 312?" in done.stdout.splitlines()[1]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupted(nano: Path) -> None:
    words = [*COMMAND, str(nano), "--tasks", "--threads", "1"]
    environment = {**os.environ, "LOCALAI_PROGRESS": "json"}
    process = subprocess.Popen(words, stdout=-1, stderr=-1, text=True, env=environment)
    assert process.stderr is not None
    while (now := json.loads(process.stderr.readline()))["done"] < 2:
        assert now["step"] == f"Asking {nano.name}"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "\nright  " in out
    assert " of 100 questions; the next run goes on there\n" in err
    assert err.splitlines()[-1] == "localai: error: interrupted"


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--questions", "3"], "--questions goes with --tasks"),
        (["--each"], "--each goes with --tasks"),
        (["--think-budget", "3"], "--think-budget goes with --tasks"),
        (["--tasks", "--chunks", "3"], "not for --tasks"),
        (["--tasks", "--context", "256"], "not for --tasks"),
        (["--tasks", "--think-budget", "9"], "the set 'sums' has no --think-budget"),
    ],
)
def test_what_does_not_go_together(nano: Path, words: list[str], said: str) -> None:
    assert said in evaluated(nano, *words, code=2).stderr


def test_a_model_that_nobody_can_ask(nano: Path, tmp_path: Path) -> None:
    other = tmp_path / "base.gguf"
    data = nano.read_bytes().replace("<｜User｜>".encode(), "<｜Usir｜>".encode())
    other.write_bytes(data.replace(b"tokenizer.chat_template", b"tokenizer.chat_templato"))
    done = evaluated(other, "--tasks", code=1)
    assert "no set of questions suits base.gguf" in done.stderr
    assert done.stdout == ""


def test_a_budget_is_for_sets_that_have_one() -> None:
    tasks = Plan(tasks=named(REASONING), think_budget=100).resolved()
    assert (tasks.limits.think_budget, tasks.limits.max_tokens) == (100, 612)
    assert tasks.sha256 != named(REASONING).sha256
    with pytest.raises(UsageError):
        Plan(tasks=named(QUESTIONS), think_budget=100).resolved()


async def test_an_engine_that_ends_without_a_word(nano: Path) -> None:
    class Silent(Engine):
        async def load(self, *_: object, **__: object) -> protocol.Loaded:
            from tests.localai.test_bench import loaded

            return loaded()

        async def describe(self) -> protocol.EngineInfo:
            return protocol.EngineInfo(llama_cpp_commit="abc", system_info="", features=[], devices=[])

        async def generate(self, *_: object, **__: object) -> Any:
            yield protocol.Answer(1, "943 + 312 = 1255", 5)

    with pytest.raises(EngineError, match="without saying so"):
        await run(Silent(), candidate(nano), ONE_THREAD, Plan(tasks=named(SUMS)))
