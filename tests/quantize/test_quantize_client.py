"""The worker process: every type for real, errors across the pipe, and deaths on either side."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

import quantize.client
from localai.errors import CheckpointError, QuantizeError, UsageError
from localai.processes import worker_command
from quantize.client import run
from quantize.file_types import FILE_TYPES
from quantize.protocol import Failed, Job, Progress, decode_event, pack
from quantize.safetensors import read_header
from tests.quantize.making import NANO, from_bf16, make_checkpoint, names_in

OLD = b"the old one"


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """An output that exists already; nothing else may be beside it at the end."""
    path = tmp_path / "out" / "x.gguf"
    path.parent.mkdir()
    path.write_bytes(OLD)
    yield path
    assert names_in(path.parent) == ["x.gguf"]


def job(output: Path, file_type: str = "Q4_K_M", source: Path = NANO) -> Job:
    return Job(str(source), str(output), file_type, overwrite=True)


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_r1_nano_becomes_every_type(output: Path, file_type: str, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Progress] = []
    report = run(job(output, file_type), on_progress=events.append)
    reader = GGUFReader(output)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert (report.file_type, report.architecture, report.tensors) == (file_type, "qwen2", 63)
    assert report.output_bytes == output.stat().st_size
    assert report.weights == 4_199_680
    assert fields["general.file_type"] == FILE_TYPES[file_type]
    assert fields["tokenizer.ggml.pre"] == "deepseek-r1-qwen"
    assert fields["tokenizer.ggml.bos_token_id"] == 453
    assert fields["tokenizer.chat_template"].endswith("<think>\\n' }}{% endif %}")
    assert len(reader.tensors) == 63
    check_weights(reader, 0 if file_type in {"F32", "BF16"} else 0.02 if file_type == "F16" else 0.35)
    assert list(dict.fromkeys(e.stage for e in events)) == (
        ["convert", "check"] if file_type in {"F32", "F16", "BF16"} else ["convert", "quantize", "check"]
    )
    assert capfd.readouterr() == ("", "")


def check_weights(reader: GGUFReader, tolerance: float) -> None:
    """Each matrix differs from the checkpoint's by at most `tolerance` of its own length."""
    stored = read_header(NANO / "model.safetensors")
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.2.ffn_up.weight": "model.layers.2.mlp.up_proj.weight",
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, source in names.items():
        wanted = from_bf16(stored[source].rows(0, stored[source].shape[0]))
        found = dequantize(tensors[name].data, tensors[name].tensor_type).reshape(wanted.shape)
        error = float(((found - wanted) ** 2).sum() / (wanted**2).sum()) ** 0.5
        assert error <= tolerance


def test_errors_cross_the_pipe_with_kind_and_hint(output: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run(job(output, "Q4_K_X"))
    assert "Q4_K" in caught.value.hint
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        run(job(output, source=output.parent))
    assert output.read_bytes() == OLD


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose conversion to Q3_K_M takes a good second."""
    folder = tmp_path_factory.mktemp("large") / "m"
    make_checkpoint(folder, hidden_size=1024, intermediate_size=4096)
    return folder


class Kill:
    """Kills the worker when it first reports the stage."""

    def __init__(self, output: Path, stage: str, number: signal.Signals) -> None:
        self.output, self.stage, self.number, self.pid = output, stage, number, 0

    def on_start(self, pid: int) -> None:
        self.pid = pid

    def on_progress(self, progress: Progress) -> None:
        if progress.stage == self.stage and self.pid:
            assert any(f".partial-{self.pid}" in name for name in names_in(self.output.parent))
            os.kill(self.pid, self.number)
            self.pid = 0


@pytest.mark.parametrize("stage", ["convert", "quantize"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_worker_that_dies_is_one_error(
    output: Path, large: Path, stage: str, number: signal.Signals
) -> None:
    kill = Kill(output, stage, number)
    with pytest.raises(QuantizeError) as caught:
        run(job(output, "Q3_K_M", large), kill.on_progress, kill.on_start)
    assert number.name in caught.value.message
    assert str(output) in caught.value.message
    assert "\n" not in str(caught.value)
    assert output.read_bytes() == OLD


def test_a_worker_that_cannot_start(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    monkeypatch.setattr(quantize.client.processes, "worker_command", lambda module: command)
    with pytest.raises(QuantizeError, match="exit code 1: no such thing"):
        run(job(output))
    assert output.read_bytes() == OLD


def test_a_worker_that_is_gone_before_it_gets_the_job(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('gone')"]
    monkeypatch.setattr(quantize.client.processes, "worker_command", lambda module: command)

    def wait_for_its_end(pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(QuantizeError, match="exit code 1: gone"):
        run(job(output), on_start=wait_for_its_end)


def test_a_worker_that_talks_nonsense(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", r"import os; os.write(1, b'\3\0\0\0abc')"]
    monkeypatch.setattr(quantize.client.processes, "worker_command", lambda module: command)
    with pytest.raises(QuantizeError, match="not an event"):
        run(job(output))


def test_ctrl_c_ends_the_worker_and_changes_nothing(output: Path, large: Path) -> None:
    started: list[int] = []

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job(output, "Q3_K_M", large), interrupt, started.append)
    assert not psutil.pid_exists(started[0])
    assert output.read_bytes() == OLD


PARENT = """
import os, signal, sys
from quantize.client import run
from quantize.protocol import Job

def die(progress):
    if progress.stage == "quantize":
        os.kill(os.getpid(), signal.SIGKILL)

run(Job(sys.argv[1], sys.argv[2], "Q3_K_M", overwrite=True), die, lambda pid: print(pid, flush=True))
"""


def test_a_worker_whose_parent_was_killed_cleans_up(output: Path, large: Path) -> None:
    parent = subprocess.run(
        [sys.executable, "-c", PARENT, str(large), str(output)], capture_output=True, text=True, check=False
    )
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(parent.stdout)).wait(timeout=20)
    assert output.read_bytes() == OLD


def test_a_worker_without_a_job_just_ends() -> None:
    command = worker_command("quantize.worker")
    assert subprocess.run(command, input=b"", capture_output=True, check=False).returncode == 0
    result = subprocess.run(command, input=b"\1\0\0\0x", capture_output=True, check=False)
    assert result.returncode == 2
    assert b"not a job" in result.stderr


def test_frames_of_the_protocol_round_trip() -> None:
    for event in (Failed("NoSpace", "message", "hint"), Progress("convert", "a", 1, 2)):
        assert decode_event(pack(event)[4:]) == event
