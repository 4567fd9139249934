"""The commands as processes of their own: output, exit codes, and one clear line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import psutil
import pytest

COMMAND = [sys.executable, "-P", "-m", "localai"]
Run = Callable[..., subprocess.CompletedProcess[str]]


def run(*words: str, stdin: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        check=False,
    )


def error_line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line of a failed command."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("localai: error: ")
    return lines[0]


# -------------------------------------------------------------------------------------------- the outside


@pytest.mark.parametrize(
    "command", [[], ["ask"], ["chat"], ["bench"], ["quantize"], ["selftest"], ["models"], ["models", "pull"]]
)
def test_help(command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, "localai 0.1.0\n")


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["ask", "--nonsense"],
        ["ask", "--seed", "x", "Hi"],
        ["models", "nonsense"],
        ["models", "show"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words: list[str]) -> None:
    assert "--help" in error_line(run(*words), 2)


def test_modules_of_the_current_folder_are_not_run(tmp_path: Path) -> None:
    for name in ("models.py", "quantize.py", "msgspec.py"):
        (tmp_path / name).write_text("raise SystemExit('hijacked')")
    done = run("models", "list", cwd=tmp_path)
    assert "hijacked" not in done.stderr
    assert done.returncode == 0


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    done = subprocess.run(
        f"{' '.join(COMMAND)} models list --json | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


# ---------------------------------------------------------------------------------------------------- ask


def test_answer_to_stdout_and_thinking_to_stderr(nano: Path) -> None:
    done = run("ask", str(nano), "What is 47 + 85?", "--temperature", "0")
    assert (done.returncode, done.stdout) == (0, "47 + 85 = **132**\n")
    assert done.stderr.startswith("7 + 5 + 0 = 12, write 2, carry 1.\n")
    assert "\x1b" not in done.stderr


JSON_FIELDS = {
    "": [
        *("model", "thinking", "answer", "finish_reason", "usage", "timings", "answer_state"),
        *("think_closed", "stop", "looping", "speculated", "notes", "sandbox"),
    ],
    "usage": ["prompt_tokens", "cached_tokens", "completion_tokens", "thinking_tokens"],
    "timings": ["load_s", "prompt_s", "first_token_s", "generation_s", "tokens_per_s"],
    "speculated": ["drafted", "accepted"],
    "sandbox": ["level", "layers", "open", "why", "profile"],
}


def test_json(nano: Path) -> None:
    done = run("ask", str(nano), "What is 6 + 7?", "--temperature", "0", "--json", "--seed", "1")
    assert done.returncode == 0
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert list(found) == JSON_FIELDS[""]
    assert list(found["usage"]) == JSON_FIELDS["usage"]
    assert list(found["timings"]) == JSON_FIELDS["timings"]
    assert list(found["speculated"]) == JSON_FIELDS["speculated"]
    assert list(found["sandbox"]) == JSON_FIELDS["sandbox"]
    assert found["answer"] == "6 + 7 = **13**"
    assert found["thinking"].startswith("6 + 7 + 0 = 13")
    assert (found["model"], found["finish_reason"]) == (nano.name, "stop")
    assert 0 < found["timings"]["load_s"] < found["timings"]["first_token_s"]


def test_json_of_a_cut_answer(nano: Path) -> None:
    found = json.loads(run("ask", str(nano), "What is 6 + 7?", "--json", "--max-tokens", "3").stdout)
    assert (found["finish_reason"], found["usage"]["completion_tokens"], found["answer"]) == ("length", 3, "")
    assert found["answer_state"] == "none"


def test_the_documented_fields_are_the_printed_ones() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    section = documented.partition("## `localai ask --json`")[2].partition("\n## ")[0]
    groups = ("usage", "timings", "speculated", "sandbox")
    names = [*(set(JSON_FIELDS[""]) - set(groups))]
    names += [f"{group}.{name}" for group in groups for name in JSON_FIELDS[group]]
    assert all(f"| `{name}` |" in section for name in names)


def test_standard_input_is_the_question(nano: Path) -> None:
    done = run("ask", str(nano), "", "--temperature", "0", stdin="What is 6 + 7?\n")
    assert done.stdout == "6 + 7 = **13**\n"


def test_a_single_word_that_is_a_model_gets_the_piped_question(nano: Path) -> None:
    found = json.loads(run("ask", str(nano), "--temperature", "0", "--json", stdin="What is 6 + 7?").stdout)
    assert (found["model"], found["answer"]) == (nano.name, "6 + 7 = **13**")


def test_arguments_that_are_no_text_are_refused() -> None:
    for words in (["ask", b"\xff\xfe"], ["models", "import", b"./n\xff.gguf"], ["quantize", b"ck \xff"]):
        done = subprocess.run([*COMMAND, *words], input=b"", capture_output=True, check=False)
        assert done.returncode == 2
        assert b"is not UTF-8 text" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_control_characters_in_a_question_are_left_out(nano: Path) -> None:
    done = run("ask", str(nano), "What is 6 + 7?\x1b\x07", "--temperature", "0")
    assert done.stdout == "6 + 7 = **13**\n"


def test_a_model_alone_is_no_question(nano: Path) -> None:
    assert "there is no question" in error_line(run("ask", str(nano)), 2)


@pytest.mark.parametrize(
    "option", ["--context", "--max-tokens", "--seed", "--threads", "--gpu-layers", "--top-k", "--batch"]
)
def test_huge_numbers_are_wrong_usage(nano: Path, option: str) -> None:
    assert option in error_line(run("ask", str(nano), "Hi", option, "1" + "0" * 20), 2)


@pytest.mark.parametrize("option", ["--temperature", "--top-p", "--repeat-penalty"])
def test_numbers_that_are_none_are_wrong_usage(nano: Path, option: str) -> None:
    error_line(run("ask", str(nano), "Hi", option, "nan"), 2)
    error_line(run("ask", str(nano), "Hi", option, "inf"), 2)


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=False)


def test_closed_and_full_outputs(nano: Path) -> None:
    ask = f"{' '.join(COMMAND)} ask {nano} 'What is 6 + 7?' --temperature 0"
    assert shell(f"{ask} >&-").returncode == 1
    assert shell(f"{ask} 2>&-").stdout == "6 + 7 = **13**\n"
    assert shell(f"{ask} 2>/dev/full").stdout == "6 + 7 = **13**\n"
    for command in (ask, f"{ask} --json", *(f"{' '.join(COMMAND)} {w}" for w in ("models list", "--help"))):
        done = shell(f"{command} 2>&1 >/dev/full | tail -1; exit ${{PIPESTATUS:-0}}")
        assert "could not be written: No space left on device" in done.stdout, command
        assert "defect" not in done.stdout


def test_an_encoding_that_cannot_say_it(nano: Path) -> None:
    done = shell(f"PYTHONIOENCODING=ascii {' '.join(COMMAND)} models show {nano} && echo ok")
    assert done.stdout.endswith("ok\n")
    unsupported = shell(f"PYTHONIOENCODING=ascii {' '.join(COMMAND)} models pull 日本")
    assert "Traceback" not in unsupported.stderr
    assert unsupported.stderr.startswith("localai: error: ")


@pytest.mark.parametrize("words", ["", "models"])
def test_no_words_show_the_help_and_no_error(words: str) -> None:
    done = run(*words.split())
    assert done.returncode == 2
    assert "Usage:" in done.stdout
    assert "error" not in done.stderr


def test_a_word_that_begins_with_a_dash() -> None:
    assert "-- ends the options" in error_line(run("ask", "-5 + 3"), 2)


def test_a_home_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOCALAI_HOME", str(tmp_path / "file"))
    assert "not a folder" in error_line(run("models", "list"), 2)


def test_standard_input_is_added_to_the_question(nano: Path) -> None:
    done = run("ask", str(nano), "Be careful and exact.", "--temperature", "0", stdin="What is 6 + 7?\n")
    assert done.stdout == "6 + 7 = **13**\n"


def test_system_prompt_is_announced(nano: Path) -> None:
    done = run("ask", str(nano), "What is 6 + 7?", "--system", "Answer briefly.", "--temperature", "0")
    assert done.stdout == "6 + 7 = **13**\n"
    assert done.stderr.startswith("localai: R1 has no system role")


@pytest.mark.parametrize("words", [["ask"], ["ask", ""], ["ask", "model", " "]])
def test_no_question(words: list[str]) -> None:
    assert "there is no question" in error_line(run(*words), 2)


def test_a_question_without_quotes() -> None:
    assert "quotes" in error_line(run("ask", "What", "is", "this?"), 2)


def test_standard_input_that_is_no_text(nano: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "ask", str(nano), "Hi"], input=b"\xff\xfe", capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr


def test_no_model_installed() -> None:
    assert "localai models pull smollm2:135m" in error_line(run("ask", "Hi"))


def test_unknown_model_suggests_the_nearest() -> None:
    assert "smollm2:135m" in error_line(run("ask", "smollm:135m", "Hi"))
    assert "r1-nano" in error_line(run("models", "pull", "r1-nanoo"))


def test_prompt_longer_than_the_context(nano: Path) -> None:
    done = run("ask", str(nano), "What is 1 + 1? " * 100, "--context", "256")
    line = error_line(done)
    assert done.stdout == ""
    assert "the context holds 256: with room for a reply that is" in line
    assert "give it more room with --context 2048" in line.lower()
    assert "shorten the message “What is 1 + 1?" in line


def _slow_ask(nano: Path) -> subprocess.Popen[str]:
    """An `ask` in the middle of its thinking, which far too many threads make slow."""
    words = [str(nano), "What is 4711 + 1147? " * 3, "--temperature", "5", "--top-p", "1", "--threads", "32"]
    words += ["--seed", "7"]  # one that goes on for long
    process = subprocess.Popen(
        [*COMMAND, "ask", *words], stdout=-1, stderr=-1, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    assert process.stderr.read(1)
    return process


def test_worker_killed_in_the_middle(nano: Path) -> None:
    process = _slow_ask(nano)
    (worker,) = psutil.Process(process.pid).children()
    worker.kill()
    _, stderr = process.communicate(timeout=60)
    last = stderr.strip().splitlines()[-1]
    assert process.returncode == 1
    assert "Traceback" not in stderr
    assert "localai: error: " in last
    assert "SIGKILL" in last


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_it_cleans_up(nano: Path, number: signal.Signals) -> None:
    process = _slow_ask(nano)
    (worker,) = psutil.Process(process.pid).children()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_interrupting_anything_is_said(nano: Path) -> None:
    """Here: while it waits for its question."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([*COMMAND, "ask", str(nano)], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    wait_for_handler(process.pid)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "localai: error: interrupted\n")


def wait_for_handler(pid: int) -> None:
    """Until the process has the handlers that it sets last before the commands."""
    bit = 1 << (signal.SIGTERM - 1)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        status = (Path("/proc") / str(pid) / "status").read_text()
        if int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16) & bit:
            return


def test_interrupt_stops_everything(nano: Path) -> None:
    process = _slow_ask(nano)
    (worker,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.strip().splitlines()[-1].endswith("localai: error: interrupted")
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


# -------------------------------------------------------------------------------------------- bad models


def test_not_a_gguf(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_text("No model, just text.")
    assert "bad.gguf" in error_line(run("ask", str(bad), "Hi"))


def test_truncated_gguf(tmp_path: Path, nano: Path) -> None:
    bad = tmp_path / "short.gguf"
    bad.write_bytes(nano.read_bytes()[:-4096])
    line = error_line(run("ask", str(bad), "Hi"))
    assert "short.gguf" in line
    assert "truncated" in line or "missing" in line


def test_unknown_architecture(tmp_path: Path) -> None:
    bad = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(bad, "mamba")
    writer.add_block_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    line = error_line(run("ask", str(bad), "Hi"))
    assert "mamba" in line
    assert "qwen2" in line


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    bad = tmp_path / name
    bad.write_bytes(b"\x80\x04K*.")
    assert "pickle" in error_line(run("ask", str(bad), "Hi"))


def test_missing_file() -> None:
    assert "none.gguf" in error_line(run("ask", "./none.gguf", "Hi"))


# --------------------------------------------------------------------------------------------------- chat


def test_chat_without_a_terminal() -> None:
    assert "localai ask" in error_line(run("chat"), 2)


# ------------------------------------------------------------------------------------------------- models


def listed() -> Any:
    return json.loads(run("models", "list", "--json").stdout)


def test_life_of_a_model(nano: Path) -> None:
    assert "No model is installed." in run("models", "list").stdout
    done = run("models", "import", str(nano), "--name", "r1:nano")
    assert done.returncode == 0, done.stderr
    assert "r1:nano is installed" in done.stdout
    assert [m["name"] for m in listed()["installed"]] == ["r1:nano"]
    assert "r1:nano" in run("models", "list").stdout
    assert run("ask", "What is 6 + 7?", "--temperature", "0").stdout == "6 + 7 = **13**\n"
    assert run("ask", "r1:nano", "--temperature", "0", stdin="What is 6 + 7?").stdout == "6 + 7 = **13**\n"
    shown = json.loads(run("models", "show", "r1:nano", "--json", "--verify").stdout)
    assert (shown["verified"], shown["architecture"], shown["parameters"]) == (True, "qwen2", 4_199_680)
    assert "already" in error_line(run("models", "import", str(nano), "--name", "r1:nano"))
    assert "Removed r1:nano" in run("models", "remove", "r1:nano").stdout
    assert listed()["installed"] == []
    error_line(run("models", "remove", "r1:nano"))


def test_import_takes_its_name_from_the_file(nano: Path) -> None:
    done = run("models", "import", str(nano), "--json")
    assert json.loads(done.stdout)["name"] == "r1-nano-q8_0"


def test_pull_of_the_shipped_model() -> None:
    done = run("models", "pull", "r1-nano")
    assert done.returncode == 0, done.stderr
    manifest = listed()["installed"][0]
    assert (manifest["name"], manifest["reasoning"], manifest["source"]["kind"]) == (
        "r1-nano",
        True,
        "builtin",
    )
    assert "**13**" in run("ask", "What is 6 + 7?", "--temperature", "0").stdout


def test_a_missing_file_is_said_by_the_list_and_mended_by_a_pull(home: Path) -> None:
    run("models", "pull", "r1-nano")
    (blob,) = (home / "data" / "models" / "blobs").iterdir()
    blob.unlink()
    done = run("models", "list")
    assert (
        "r1-nano cannot be used: its file is missing. Get it again: localai models pull r1-nano"
        in done.stderr
    )
    assert listed()["damaged"] == [{"path": "r1-nano", "reason": "its file is missing"}]
    assert "localai models pull r1-nano" in error_line(run("ask", "Hi"))
    assert run("models", "pull", "r1-nano").returncode == 0
    assert listed()["damaged"] == []


def test_a_changed_file_is_noticed(nano: Path, home: Path) -> None:
    run("models", "import", str(nano), "--name", "nano")
    (blob,) = (home / "data" / "models" / "blobs").iterdir()
    blob.chmod(0o600)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert "nano" in error_line(run("models", "show", "nano", "--verify"))


# ----------------------------------------------------------------------------------------------- quantize


def checkpoint(tmp_path: Path) -> Path:
    from models.catalog import builtin_checkpoint

    folder = tmp_path / "R1 Nano"
    folder.mkdir()
    for file in builtin_checkpoint("r1-nano").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_quantize_to_a_file(tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    done = run("quantize", str(checkpoint(tmp_path)), "--type", "q4_k_m", "--output", str(output), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["result"], found["report"]["file_type"]) == (str(output), "Q4_K_M")
    assert "**13**" in run("ask", str(output), "What is 6 + 7?", "--temperature", "0").stdout
    again = run("quantize", str(tmp_path / "R1 Nano"), "--output", str(output))
    assert "out.gguf" in error_line(again, 2)


def test_quantize_into_the_store(tmp_path: Path) -> None:
    done = run("quantize", str(checkpoint(tmp_path)), "--type", "Q8_0")
    assert done.returncode == 0, done.stderr
    assert [m["name"] for m in listed()["installed"]] == ["r1-nano:q8_0"]
    line = error_line(run("quantize", str(tmp_path / "R1 Nano"), "--type", "Q8_0"))
    assert "r1-nano:q8_0" in line


def test_quantize_refuses(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    assert "Q4_K_M" in error_line(run("quantize", str(folder), "--type", "Q4_K_X"), 2)
    error_line(run("quantize", str(folder), "--output", "x", "--name", "y"), 2)
    (folder / "config.json").rename(folder / "configuration.json")
    assert "config.json" in error_line(run("quantize", str(folder), "--output", str(tmp_path / "o.gguf")))
    (folder / "configuration.json").rename(folder / "config.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickle" in error_line(run("quantize", str(folder), "--output", str(tmp_path / "o.gguf")))
    assert "nowhere" in error_line(run("quantize", str(tmp_path / "nowhere")))
    assert listed()["installed"] == []


# ----------------------------------------------------------------------------------------------- selftest


def test_selftest() -> None:
    done = run("selftest", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"]
    assert [model["file_type"] for model in report["models"]] == ["Q8_0", "Q4_K_M"]
    assert all(item["passed"] for model in report["models"] for item in model["sums"])
    assert report["llama_cpp_commit"]
    assert report["cpu_features"]


def test_selftest_of_a_broken_installation(tmp_path: Path) -> None:
    """A library that cannot be loaded is one line of the report, and exit code 1."""
    environment = {**os.environ, "LLAMA_CPP_LIB_PATH": str(tmp_path)}
    done = subprocess.run(
        [*COMMAND, "selftest"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert "works on this machine: NO" in done.stdout
    assert "Traceback" not in done.stderr
