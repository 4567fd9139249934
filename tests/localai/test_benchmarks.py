"""The commands behind the claims run, and print the ratios they promise. No figure is judged here."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FAKE_LLAMA_BENCH = """#!{python}
import json, sys
def given(name): return int(sys.argv[sys.argv.index(name) + 1])
assert sys.argv[sys.argv.index("-o") + 1] == "json" and given("-t") == 1 and given("-r") == 1
prompt = {{"n_prompt": given("-p"), "n_gen": 0, "avg_ts": 8.0}}
print(json.dumps([prompt, {{"n_prompt": 0, "n_gen": given("-n"), "avg_ts": 4.0}}]))
"""


def run(name: str, *words: str) -> Any:
    command = [sys.executable, str(BENCHMARKS / name), *words, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def bare(**request: Any) -> Any:
    command = [sys.executable, str(BENCHMARKS / "bare.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, input=json.dumps(request))
    return json.loads(done.stdout)


def check(found: dict[str, Any], rounds: int) -> None:
    """It is a ratio, of so many turns, beside its claim."""
    assert found["ratio"] > 0
    assert len(found["ratios"]) == rounds
    assert min(found["ratios"]) <= found["median_ratio"] <= max(found["ratios"])
    assert found["claim"].split()[:2] in (["at", "least"], ["at", "most"])


def test_decode(nano: Path, tmp_path: Path) -> None:
    program = tmp_path / "llama-bench"
    program.write_text(FAKE_LLAMA_BENCH.format(python=sys.executable))
    program.chmod(0o700)
    words = ["--rounds", "2", "--tokens", "16", "--prompt", "32", "--threads", "1", "--repetitions", "1"]
    (found,) = run("decode.py", str(nano), *words, "--llama-bench", str(program))["models"]
    assert list(found["llama-bench"]) == ["pp32", "tg16"]
    for test, theirs in (("pp32", 8.0), ("tg16", 4.0)):
        check(test := found["llama-bench"][test], 2)
        assert test["llama_bench_tokens_per_s"] == theirs
        assert test["ratio"] == pytest.approx(test["tokens_per_s"] / theirs)
        assert test["mean_ratio"] > 0
    for mode in ("greedy", "recommended"):
        check(found["bare"][mode], 2)


def test_decode_without_a_llama_bench_there(nano: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "decode.py"), str(nano), "--llama-bench"]
    done = subprocess.run([*command, str(tmp_path / "none")], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path / 'none'} cannot be run: No such file or directory\n"


def test_bare(nano: Path) -> None:
    """Its greedy text is r1-nano's, and each token comes with how near the choice was."""
    prompt = "<｜begin▁of▁sentence｜><｜User｜>What is 47 + 85?<｜Assistant｜><think>\n"
    tokens = bare(task="tokens", path=str(nano), text=prompt)["tokens"]
    found = bare(task="margins", path=str(nano), threads=1, tokens=tokens, count=12)
    assert "".join(found["pieces"]).startswith("7 + 5")
    assert len(found["pieces"]) == len(found["margins"]) == len(found["noise"]) == 12
    assert min(found["margins"]) > 0
    assert min(found["noise"]) >= 0
    assert max(found["noise"]) < max(found["margins"])
    assert bare(task="rate", path=str(nano), threads=1, tokens=tokens, count=12)["tokens_per_s"] > 0


def test_speculate(nano: Path) -> None:
    words = ["--rounds", "1", "--replies", "3", "--tokens", "24", "--sums", str(nano), "--threads", "1"]
    found = run("speculate.py", str(nano), *words)
    assert set(found["copying"]["tasks"]) == {"quote", "spelling", "rename", "table", "going on"}
    assert found["copying"]["claim"] == "at least 1.5"
    check(found["chat"], 1)
    assert found["greedy"]["replies"] == found["sums"]["replies"] == 3
    assert 0 < found["chat"]["tokens"] <= 5 * 24
    assert found["sums"]["same"] <= 3


@pytest.fixture
def speculate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, which imports its neighbours as a program does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("speculate")


def test_how_much_of_a_reply_was_repeated(speculate: Any) -> None:
    prompt = "copy this: one two three four five six"
    assert speculate.repeated("one two three four five six", prompt) == 1
    assert speculate.repeated("one two three four and something else here", prompt) == 0.5
    assert speculate.repeated("four three two one", prompt) == 0
    assert speculate.repeated("", prompt) == 0


def test_which_token_a_character_belongs_to(speculate: Any) -> None:
    pieces = ["a b", " c", "\n", "d"]
    assert speculate._tokens_at(1, pieces) == [0]
    assert speculate._tokens_at(2, pieces) == [1]
    assert speculate._tokens_at(3, pieces) == [2, 3]
    assert speculate._tokens_at(4, pieces) == [3]


def test_where_two_texts_part(speculate: Any, nano: Path) -> None:
    model = speculate.resolve(str(nano))
    arguments = speculate.parser("", rounds=1).parse_args(["--threads", "1"])
    text = "7 + 5 + 0 = 12, write 2, carry 1."
    place = speculate.where(model, "What is 47 + 85?", text, text.replace("write", "and"), 20, arguments)
    assert place["token"] > 5
    assert place["tie"] == (place["margin"] <= place["noise"])
    assert not place["tie"]
    place = speculate.where(model, "What is 47 + 85?", "8" + text, "9" + text, 20, arguments)
    assert place["token"] == 0
    pieces, seconds = ["a", "bc", "="], ["x", "bcd", "y"]
    assert speculate._other_way(pieces, seconds, 3, "abcde=") == [1], "they part within a token"
    assert speculate._other_way(pieces, seconds, 3, "abc?") == []
    place = speculate.where(model, "What is 47 + 85?", "wholly other", "wholly different", 20, arguments)
    assert place["tie"] is None


def test_second_turn(nano: Path) -> None:
    found = run("second_turn.py", str(nano), "--rounds", "1", "--tokens", "300")
    check(found, 1)
    assert set(found["median_s"]) == {"cold", "second turn", "alone", "at once"}
    assert found["thinking_tokens"] > 300
    assert found["conversation_tokens"] >= 300
    read = found["read_tokens"]
    assert read["second turn"] == read["alone"] < read["cold"]


def test_resume(nano: Path) -> None:
    found = run("resume.py", str(nano), "--rounds", "1", "--tokens", "300")
    check(found, 1)
    assert found["left_tokens"] < found["tokens"]
    assert found["state_bytes"] > 0


def test_cancel(nano: Path) -> None:
    found = run("cancel.py", str(nano), "--rounds", "3", "--tokens", "1500")
    for part in ("reading", "writing"):
        check({**found[part], "claim": found["claim"]}, 3)
        assert found[part]["ratio"] == max(found[part]["ratios"])


def test_overhead(nano: Path) -> None:
    found = run("overhead.py", str(nano), "--rounds", "1", "--tokens", "64")
    assert 0 < found["ratio"] == found["ratios"][0]
    assert found["app_memory_bytes"] > 0
    assert found["worker_memory_bytes"] > 0


def test_startup(nano: Path) -> None:
    found = run("startup.py", str(nano), "--rounds", "1")
    assert found["ratio"]["python -c pass"] == 1
    assert found["ratio"]["first token"] > found["ratio"]["localai --help"] / 10


def test_history() -> None:
    found = run("history.py", *["--conversations", "30", "--messages", "6", "--rounds", "2", "--kills", "3"])
    assert found["messages"] == 180
    assert {task["ratio_to_plain"] > 0 for task in found["times"].values()} == {True}
    done = found["kills"]
    assert done["acknowledged"] >= done["kills"] == 3
    assert done["lost"] == done["damaged"] == 0


def test_tui(nano: Path) -> None:
    found = run(
        "tui.py", str(nano), *["--rounds", "1", "--tokens", "60", "--conversations", "5"], "--long", "300"
    )
    check(found["speed"], 1)
    assert found["start_s"] > 0
    assert found["long"]["tokens"] == 300
    assert found["long"]["memory_after"] > 0
    assert found["long"]["last_quarter_s"] > 0


def test_every_benchmark_is_described() -> None:
    described = (BENCHMARKS / "README.md").read_text()
    assert all(f"benchmarks/{path.name}" in described for path in BENCHMARKS.glob("*.py"))


@pytest.mark.parametrize(
    "name", ["decode", "speculate", "second_turn", "resume", "cancel", "overhead", "startup"]
)
def test_without_a_model_there_is_one_line(name: str) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "smollm2:135m"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "smollm2:135m is not installed. Install it with: localai models pull smollm2:135m\n"
