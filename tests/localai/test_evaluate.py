"""`localai evaluate` with the real tiny model: what it finds, keeps, refuses and says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localai.cli.evaluate import print_report
from localai.confine.report import NOT_STARTED
from localai.engine import protocol
from localai.engine.context import AbortFlag, Context, ContextSettings
from localai.engine.llama import Model
from localai.engine.settings import LoadOptions
from localai.errors import EngineError
from localai.evaluation.report import Report
from localai.evaluation.run import Candidate, Plan, run
from localai.evaluation.texts import EVALUATION, Text, built_in
from models.catalog import builtin_checkpoint
from models.gguf import read_header
from quantize.client import Wanted
from quantize.client import run as quantize
from quantize.protocol import Job

COMMAND = [sys.executable, "-P", "-m", "localai", "evaluate"]
CHUNK = 64
COUNTED = CHUNK - 1 - CHUNK // 2


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """r1-nano at F32."""
    output = tmp_path_factory.mktemp("exact") / "r1-nano-F32.gguf"
    quantize(Job(source=str(builtin_checkpoint("r1-nano"))), [Wanted("F32", output)], load=False)
    return output


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Some thousand tokens of the model's."""
    path = tmp_path / "text.txt"
    path.write_text(built_in(EVALUATION).content[:4000] + "\n", encoding="utf-8")
    return path


def evaluated(*words: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def found(*words: object) -> dict[str, Any]:
    return json.loads(evaluated(*words, "--json").stdout)  # type: ignore[no-any-return]


# ----------------------------------------------------------------------------------------- what is measured


def negative_logarithms(model: Model, tokens: list[int], chunks: int) -> list[float]:
    """Of the tokens that count, from all logits of each chunk, which is read in one batch."""
    settings = ContextSettings(size=256, threads=1, batch=CHUNK, outputs=CHUNK)
    values = []
    with Context(model, settings, AbortFlag()) as context:
        for number in range(chunks):
            chunk = tokens[number * CHUNK : (number + 1) * CHUNK]
            first = [model.special_token(model.bos), *chunk[1:]] if model.adds_bos else chunk
            context.truncate(0, 0)
            context.add(0, 0, [token for token in first if token is not None], CHUNK)
            context.evaluate()
            for place in range(CHUNK // 2, CHUNK - 1):
                row = (np.ctypeslib.ctypes.c_float * model.vocabulary).from_address(context.logits(place))
                logits = np.array(row, np.float64)
                values.append(float(np.log(np.exp(logits).sum()) - logits[chunk[place + 1]]))
    return values


def test_the_perplexity_is_that_of_all_logits(exact: Path, text: Path) -> None:
    report = found(exact, "--text", text, "--context", CHUNK, "--chunks", 5, "--threads", 1)
    with Model(exact, 0, lambda share: True) as model:
        tokens = model.tokenize_document(text.read_text(encoding="utf-8").removesuffix("\n"))
        expected = negative_logarithms(model, tokens, 5)
    assert (report["chunks"], report["tokens"]) == (5, len(expected)) == (5, 5 * COUNTED)
    assert report["perplexity"] == pytest.approx(np.exp(np.mean(expected)), rel=1e-3)
    error = np.std(expected) / np.sqrt(len(expected) - 1)
    assert report["perplexity_stderr"] == pytest.approx(error * report["perplexity"], rel=1e-2)
    assert report["kl"] is report["reference"] is report["top1_agreement"] is report["dp_rms"] is None


def test_a_quantization_differs_a_little(nano: Path, exact: Path, text: Path) -> None:
    report = found(nano, "--reference", exact, "--text", text, "--context", 256, "--sandbox", "require")
    kl = report["kl"]
    assert 0 < kl["median"] < kl["mean"] < 0.05
    assert kl["median"] < kl["p90"] < kl["p99"] < kl["p999"] <= kl["max"]
    assert 0.9 < report["top1_agreement"] < 1
    assert abs(report["perplexity_ratio"] - 1) < 5 * report["perplexity_ratio_stderr"]
    assert 0 < report["dp_rms"] < 0.1
    assert report["reference_perplexity"] != report["perplexity"]
    assert (report["file_type"], report["reference_file_type"]) == ("Q8_0", "F32")
    assert report["sandbox"]["level"] == "full"
    assert report["tokens_per_s"] > 0 < report["memory"]
    alone = found(exact, "--text", text, "--context", 256)
    assert alone["perplexity"] == pytest.approx(report["reference_perplexity"], rel=1e-4)


def test_a_model_does_not_differ_from_itself(nano: Path, text: Path) -> None:
    report = found(nano, "--reference", nano, "--text", text, "--context", CHUNK, "--threads", 1)
    assert set(report["kl"].values()) == {0.0}
    assert (report["top1_agreement"], report["perplexity_ratio"]) == (1, 1)
    assert (report["dp_mean"], report["dp_rms"], report["dp_rms_stderr"]) == (0, 0, 0)


def test_pieces_make_no_difference(nano: Path, exact: Path, text: Path) -> None:
    """But for sums that are taken in another order: how much that matters depends on the processor."""
    words = (nano, "--reference", exact, "--text", text, "--context", 256, "--chunks", 2, "--fresh")
    small, large = found(*words, "--batch", 16), found(*words)
    assert small["perplexity"] == pytest.approx(large["perplexity"], rel=0.02)  # this text is strange to it
    error = large["kl"]["mean_stderr"]
    assert small["kl"]["mean"] == pytest.approx(large["kl"]["mean"], abs=2 * error)
    assert error < 0.2 * large["kl"]["mean"]  # so that the bound means something


def test_the_text_of_our_own(nano: Path) -> None:
    report = found(nano, "--chunks", 1)
    assert report["text"] == "built-in evaluation.txt"
    assert report["text_sha256"] == built_in(EVALUATION).sha256
    assert (report["context"], report["tokens"]) == (512, 255)


# -------------------------------------------------------------------------------------------- what is kept


def test_it_goes_on_from_where_it_was(nano: Path, exact: Path, text: Path, home: Path) -> None:
    words = (nano, "--reference", exact, "--text", text, "--context", CHUNK, "--threads", 1)
    whole = found(*words, "--chunks", 4)
    kept = next((home / "data" / "evaluations").iterdir())
    assert kept.parent.stat().st_mode & 0o077 == 0 or os.name == "nt"
    assert whole["chunks_measured"] == 4
    again = found(*words, "--chunks", 4)
    assert (again["chunks_measured"], again["tokens_per_s"]) == (0, None)
    size = kept.stat().st_size
    os.truncate(kept, size // 2 + 3)
    assert found(*words, "--chunks", 1)["chunks_measured"] == 0
    rest = found(*words, "--chunks", 4)
    assert 0 < rest["chunks_measured"] < 4
    for field in ("perplexity", "kl", "top1_agreement", "dp_rms", "perplexity_ratio_stderr"):
        assert whole[field] == again[field] == rest[field]
    assert found(*words, "--chunks", 4, "--fresh")["chunks_measured"] == 4
    assert found(nano, "--text", text, "--context", CHUNK, "--chunks", 4)["chunks_measured"] == 4


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupted(nano: Path, exact: Path) -> None:
    words = [*COMMAND, str(nano), "--reference", str(exact), "--threads", "1", "--context", "2048"]
    process = subprocess.Popen(words, stdout=-1, stderr=-1, text=True)
    assert process.stderr is not None
    while ", KL" not in (line := process.stderr.readline()):
        assert line.startswith("chunk 1 of ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "KL divergence, mean" in out
    assert "; the next run goes on there\n" in err
    assert err.splitlines()[-1] == "localai: error: interrupted"
    again = found(nano, "--reference", exact, "--threads", 1, "--context", 2048, "--chunks", 1)
    assert again["chunks_measured"] == 0


# ------------------------------------------------------------------------------------------ what is refused


def test_a_text_that_is_too_short(nano: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("What is 47 + 85?")
    done = evaluated(nano, "--text", path, code=2)
    assert "tokens, and this needs 1,024: two chunks of 512. Give a longer text, or" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--text", "/nowhere"], 2, "/nowhere is not a file"),
        (["--reference", "/nowhere.gguf"], 1, "/nowhere.gguf"),
        (["--context", "4096"], 2, "--context 4,096 is more than the 2,048 tokens that r1-nano"),
        (["--context", "31"], 2, "--context"),
    ],
)
def test_what_cannot_be(nano: Path, words: list[str], code: int, said: str) -> None:
    assert said in evaluated(nano, *words, code=code).stderr


def test_a_reference_with_other_tokens(nano: Path, exact: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(exact.read_bytes().replace("Ġdigits".encode(), "Ġdigitz".encode()))
    assert (
        "other.gguf has other tokens than the model" in evaluated(nano, "--reference", other, code=2).stderr
    )


@pytest.mark.parametrize("whose", ["model", "reference"])
def test_weights_that_are_no_numbers(nano: Path, exact: Path, tmp_path: Path, whose: str) -> None:
    header, data = read_header(exact), bytearray(exact.read_bytes())
    tensor = next(tensor for tensor in header.tensors if tensor.name == "output_norm.weight")
    start = header.data_offset + tensor.offset
    data[start : start + 4] = np.array([np.nan], "<f4").tobytes()
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(data)
    words = [damaged, "--reference", nano] if whose == "reference" else [nano, "--reference", damaged]
    assert "is too large or no number" in evaluated(*words, code=1).stderr


class LyingEngine:
    """What a worker could tell that a model has taken over."""

    def __init__(self, *events: protocol.Evaluating | protocol.Evaluated) -> None:
        self.events = events
        self.sandbox = NOT_STARTED

    async def load(self, *_: object, **__: object) -> protocol.Loaded:
        from tests.localai.test_bench import loaded

        return loaded()

    async def describe(self) -> protocol.EngineInfo:
        return protocol.EngineInfo(llama_cpp_commit="abc", system_info="", features=[], devices=[])

    async def evaluate(
        self, text: str, chunk: int, first: int, chunks: int
    ) -> AsyncGenerator[protocol.Evaluating | protocol.Evaluated, None]:
        for event in self.events:
            yield event


BEGIN = protocol.Evaluating(1, 900, 2, 2)
GOOD = np.full(COUNTED, 0.5, "<f4").tobytes()


@pytest.mark.parametrize(
    "events",
    [
        [protocol.Evaluating(1, 900, 2, 1)],
        [BEGIN, protocol.Evaluated(1, 1, GOOD, left=0)],
        [BEGIN, protocol.Evaluated(1, 0, GOOD, left=7)],
        [BEGIN, protocol.Evaluated(1, 0, GOOD[:-4], left=1)],
        [BEGIN, protocol.Evaluated(1, 0, GOOD[:-4] + b"\xff" * 4, left=1)],
        [BEGIN, protocol.Evaluated(1, 0, GOOD, GOOD, GOOD, bytes(COUNTED), left=1)],
    ],
    ids=["count", "order", "left", "short", "nan", "reference"],
)
async def test_a_worker_that_lies(nano: Path, events: list[Any], home: Path) -> None:
    engine: Any = LyingEngine(*events)
    model = Candidate(nano, "nano", read_header(nano))
    with pytest.raises(EngineError, match=r"the engine (counts|sent)"):
        await run(engine, model, None, LoadOptions(), Plan(text=Text("t", "text"), context=CHUNK))
    assert not (home / "data" / "evaluations").exists()


# ---------------------------------------------------------------------------------------------- what is said


def test_for_people(nano: Path, exact: Path, text: Path) -> None:
    done = evaluated(nano, "--reference", exact, "--text", text, "--context", CHUNK, "--chunks", 3)
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line.strip())
    assert lines["model"].strip().startswith("r1-nano-Q8_0.gguf: Q8_0, ")
    assert lines["text"].strip() == f"text.txt: 3 chunks of 64, {3 * COUNTED} tokens count"
    assert " +- " in lines["KL divergence, mean"]
    assert " % +- " in lines["same most likely token"]


def test_the_same_file_has_no_errors_to_tell(nano: Path, text: Path) -> None:
    done = evaluated(nano, "--reference", nano, "--text", text, "--context", CHUNK, "--chunks", 1)
    assert "KL divergence, mean     0.000\n" in done.stdout
    assert "same most likely token  100.000 %\n" in done.stdout


def test_notes_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(
        **{"model": "\x1b[31mm", "text": "t", "text_sha256": "", "context": 512, "chunks": 1},  # type: ignore[arg-type]
        **{"chunks_planned": 3, "tokens": 255, "perplexity": 10.0, "perplexity_stderr": 0.4},  # type: ignore[arg-type]
        **{"file_type": "Q8_0", "size": 5, "backend": "CPU", "threads": 1, "kv_type": "f16"},  # type: ignore[arg-type]
        **{"llama_cpp_commit": "", "chunks_measured": 1, "tokens_per_s": 5.0, "seconds": 2.0},  # type: ignore[arg-type]
        **{"memory": 7, "notes": ["a note"], "sandbox": NOT_STARTED},  # type: ignore[arg-type]
    )
    print_report(report)
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert "10.00 +- 0.40" in out
    assert err.splitlines() == [
        "localai: a note",
        "localai: stopped after 1 of 3 chunks; the next run goes on there",
    ]


def test_the_engine_closes_what_it_opened(nano: Path) -> None:
    """The contexts of an evaluation do not stay: a second one begins as the first did."""
    from localai.engine.serving import Served

    request = protocol.Evaluate(1, "What is 47 + 85? " * 60, CHUNK, 0, 1)
    with ExitStack() as resources:
        options = LoadOptions(threads=1, converse=False, reference=str(nano))
        served = Served(nano, options, AbortFlag(), resources, lambda share: True)
        first, second = (list(served.serve(request)) for _ in range(2))
    assert [type(event) for event in first] == [type(event) for event in second]
    assert isinstance(first[-1], protocol.Evaluated)
    assert isinstance(second[-1], protocol.Evaluated)
    assert (first[-1].nll, first[-1].kl) == (second[-1].nll, second[-1].kl)
