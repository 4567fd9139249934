"""The worker process: every type for real, errors across the pipe, and deaths on either side."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

import quantize.check
import quantize.client
from localai import frames
from localai.errors import CheckpointError, LoadError, NoSpace, QuantizeError, UsageError
from localai.processes import worker_command
from quantize.client import Made, Wanted, run
from quantize.file_types import FILE_TYPES, TERNARY
from quantize.partials import Partial
from quantize.protocol import Confined, Failed, Forecast, Job, Progress, Target, decode_event, pack
from quantize.safetensors import read_header
from tests.quantize.doing import convert, fields
from tests.quantize.making import NANO, from_bf16, make_checkpoint, names_in, rows_of

OLD = b"the old one"
SLOW = {"IQ3_M", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XXS", "IQ1_M", "IQ1_S"}
"""They take seconds even for this model; test_quantize_golden.py makes them of smaller ones."""
TYPES = [file_type for file_type in FILE_TYPES if file_type not in SLOW]
IMATRIX = Path(__file__).parents[1] / "data" / "imatrix" / "r1-nano.gguf"


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """An output that exists already; nothing else may be beside it at the end."""
    path = tmp_path / "out" / "x.gguf"
    path.parent.mkdir()
    path.write_bytes(OLD)
    yield path
    assert names_in(path.parent) == ["x.gguf"]


@pytest.fixture(params=["unnamed", "named"])
def partials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which files are kept until they are complete."""
    if request.param == "named":
        monkeypatch.setattr(Partial, "_open_unnamed", lambda self: -1)
    return str(request.param)


def replace(output: Path, file_type: str = "Q4_K_M", source: Path = NANO, **options) -> Made:
    return run(Job(str(source)), [Wanted(file_type, output)], overwrite=True, load=False, **options)


# ------------------------------------------------------------------------------------------------ results


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made, list[Forecast | Progress]]:
    """r1-nano in many types, made in one run; a folder with TYPE.gguf, and what was said of it."""
    folder = tmp_path_factory.mktemp("every")
    events: list[Forecast | Progress] = []
    wanted = [Wanted(file_type, folder / f"{file_type}.gguf") for file_type in TYPES]
    made = run(Job(str(NANO), imatrix=str(IMATRIX)), wanted, load=False, on_event=events.append)
    return folder, made, events


@pytest.mark.parametrize("file_type", TYPES)
def test_r1_nano_becomes_every_type(
    every: tuple[Path, Made, list[Forecast | Progress]], file_type: str
) -> None:
    folder, made, _ = every
    output = folder / f"{file_type}.gguf"
    (written,) = [one for one in made.report.outputs if one.file_type == file_type]
    (candidate,) = [one for one in made.forecast.candidates if one.file_type == file_type]
    reader = GGUFReader(output)
    found = fields(output)
    assert (made.report.architecture, made.report.tensors, made.report.weights) == ("qwen2", 63, 4_199_680)
    assert written.size == candidate.size == output.stat().st_size
    assert written.bits_per_weight == candidate.bits_per_weight
    assert written.sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
    assert written.types == Counter(tensor.tensor_type.name for tensor in reader.tensors)
    assert found["general.file_type"] == FILE_TYPES[file_type]
    assert found["tokenizer.ggml.pre"] == "deepseek-r1-qwen"
    assert found["tokenizer.ggml.bos_token_id"] == 453
    assert str(found["tokenizer.chat_template"]).endswith("<think>\\n' }}{% endif %}")
    assert len(reader.tensors) == 63
    if file_type not in TERNARY:
        exact = file_type in {"F32", "BF16"}
        check_weights(reader, 0 if exact else 4.5 * 2 ** -min(candidate.bits_per_weight, 12))


def check_weights(reader: GGUFReader, tolerance: float) -> None:
    """Each matrix differs from the checkpoint's by at most `tolerance` of its own length."""
    stored = read_header(NANO / "model.safetensors")
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.2.ffn_up.weight": "model.layers.2.mlp.up_proj.weight",
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, source in names.items():
        wanted = from_bf16(rows_of(stored[source], 0, stored[source].shape[0]))
        found = dequantize(tensors[name].data, tensors[name].tensor_type).reshape(wanted.shape)
        error = float(((found - wanted) ** 2).sum() / (wanted**2).sum()) ** 0.5
        assert error <= tolerance, name


def test_a_run_says_what_it_does(every: tuple[Path, Made, list[Forecast | Progress]]) -> None:
    folder, made, (first, *rest) = every
    assert first == made.forecast
    stages = [event.stage for event in rest if isinstance(event, Progress)]
    assert list(dict.fromkeys(stages)) in (["convert"], ["convert", "hash"])
    assert {check.result for check in made.checks} == {"skipped"}
    assert names_in(folder) == sorted(f"{file_type}.gguf" for file_type in TYPES)


def test_a_file_made_alone_is_the_same(
    every: tuple[Path, Made, list[Forecast | Progress]], tmp_path: Path
) -> None:
    for file_type in ("F16", "Q8_0", "Q4_K_M", "IQ4_NL"):
        alone = tmp_path / "alone.gguf"
        run(Job(str(NANO), imatrix=str(IMATRIX)), [Wanted(file_type, alone)], overwrite=True, load=False)
        assert alone.read_bytes() == (every[0] / f"{file_type}.gguf").read_bytes()


def test_nothing_is_printed(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    replace(output, "Q2_K")
    assert capfd.readouterr() == ("", "")


def test_the_engine_runs_it_before_it_gets_its_name(output: Path, partials: str) -> None:
    stages: list[str] = []

    def observe(event: Forecast | Progress) -> None:
        stages.append(event.stage if isinstance(event, Progress) else "")
        assert output.read_bytes() == OLD

    made = run(Job(str(NANO)), [Wanted("Q8_0", output)], overwrite=True, on_event=observe)
    (check,) = made.checks
    assert (check.result, check.reason, check.tokens) == ("passed", "", 2)
    assert stages[-1] == "check"
    assert output.read_bytes()[:4] == b"GGUF"


def test_a_model_that_memory_cannot_hold_is_not_tried(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.check.hardware, "available_memory", lambda: 1 << 20)
    made = run(Job(str(NANO)), [Wanted("Q8_0", output)], overwrite=True)
    assert made.checks[0].result == "skipped"
    assert "memory" in made.checks[0].reason


def refused(*_: object) -> None:
    raise LoadError("llama.cpp says no", "Cry")


def test_a_file_that_the_engine_refuses_is_not_kept(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.check, "run", refused)
    with pytest.raises(
        QuantizeError, match=r"x\.gguf would not be sound, so it was not kept: llama\.cpp say"
    ):
        run(Job(str(NANO)), [Wanted("Q8_0", output)], overwrite=True)
    assert output.read_bytes() == OLD


def test_a_file_with_other_tensors_is_not_kept(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(tmp_path / "m")
    convert(tmp_path / "m", tmp_path / "other.gguf")
    read = quantize.client.read_header
    monkeypatch.setattr(quantize.client, "read_header", lambda path: read(tmp_path / "other.gguf"))
    with pytest.raises(QuantizeError, match="it has not the tensors that it should have"):
        replace(output)
    assert output.read_bytes() == OLD


# ------------------------------------------------------------------------------------------------- errors


def test_errors_cross_the_pipe_with_kind_and_hint(output: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json") as caught:
        replace(output, source=output.parent)
    assert caught.value.hint
    with pytest.raises(UsageError, match="regular expression") as refusal:
        run(Job(str(NANO), tensor_types=(("ffn_[", 8),)), [Wanted("Q8_0", output)], overwrite=True)
    assert "\n" not in str(refusal.value)
    assert output.read_bytes() == OLD


def test_what_cannot_be_asked_for(output: Path) -> None:
    with pytest.raises(UsageError, match="no output type") as caught:
        replace(output, "Q4_K_X")
    assert "Q4_K" in caught.value.hint
    with pytest.raises(UsageError, match="two outputs would have the same name"):
        run(Job(str(NANO)), [Wanted("Q8_0", output), Wanted("Q4_0", output.parent / "." / "x.gguf")])


def test_the_space_is_looked_at_before_anything_is_read(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes of files on the same disk add up."""
    free: dict[str, int] = {}
    events: list[Forecast | Progress] = []
    monkeypatch.setattr(quantize.client, "free_bytes", lambda folder: free[folder.name])

    def attempt(room: int) -> None:
        free["out"] = room
        both = [Wanted("Q8_0", output), Wanted("Q4_0", output.with_name("y"))]
        run(Job(str(NANO)), both, overwrite=True, load=False, on_event=events.append)

    known = quantize.client.forecast(Job(str(NANO)))
    sizes = {one.file_type: one.size for one in known.candidates}
    needed = sizes["Q8_0"] + sizes["Q4_0"]
    with pytest.raises(NoSpace, match=r"out has room for 6\.\d MB, but the result takes 6\.\d MB") as caught:
        attempt(needed - 1)
    assert caught.value.hint == "Free some space, or choose another place"
    assert events == []
    assert output.read_bytes() == OLD
    attempt(needed)
    output.with_name("y").unlink()


def test_room_that_the_worker_has_set_aside_is_not_missing(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker may have allocated its files by the time that its forecast is read."""
    known = quantize.client.forecast(Job(str(NANO)))
    size = next(one.size for one in known.candidates if one.file_type == "Q8_0")
    room = [size]
    monkeypatch.setattr(quantize.client, "free_bytes", lambda folder: room[0])
    replace(output, "Q8_0", on_start=lambda pid: room.__setitem__(0, 0))


def test_a_worker_that_cannot_start(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    monkeypatch.setattr(quantize.client.processes, "worker_command", lambda module: command)
    with pytest.raises(QuantizeError, match="exit code 1: no such thing"):
        replace(output)
    assert output.read_bytes() == OLD


def test_a_worker_that_is_gone_before_it_gets_the_job(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('gone')"]
    monkeypatch.setattr(quantize.client.processes, "worker_command", lambda module: command)

    def wait_for_its_end(pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(QuantizeError, match="exit code 1: gone"):
        replace(output, on_start=wait_for_its_end)


FINISHED = """
import os
from quantize.protocol import Finished, Report, pack
os.write(1, pack(Finished(Report("llama", 1, 1, 1, {}, "", "", (), 1.0))))
"""


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (r"import os; os.write(1, b'\3\0\0\0abc')", "not an event"),
        (r"import os; os.write(1, b'\xff\xff\xff\xff')", "not an event"),
        (FINISHED, "stopped in the middle"),
    ],
    ids=["no message", "too long", "finished without a forecast"],
)
def test_a_worker_that_talks_nonsense(
    output: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    command = [sys.executable, "-c", program]
    monkeypatch.setattr(quantize.client.processes, "worker_command", lambda module: command)
    with pytest.raises(QuantizeError, match=message):
        replace(output)
    assert output.read_bytes() == OLD


# ------------------------------------------------------------------------------------------------- deaths


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 66 MB, whose conversion to Q3_K_M takes a good second."""
    folder = tmp_path_factory.mktemp("large") / "m"
    make_checkpoint(folder, hidden_size=1024, intermediate_size=4096)
    return folder


class Die:
    """Does `deed` with the worker when it first reports that it is in the stage, or nearly done with it."""

    def __init__(self, stage: str, deed: Callable[[int], None]) -> None:
        self.stage, self.deed, self.pid, self.done = stage, deed, 0, False

    def on_start(self, pid: int) -> None:
        self.pid = pid

    def on_event(self, event: Forecast | Progress) -> None:
        if self._is_there(event) and not self.done:
            self.done = True
            self.deed(self.pid)

    def _is_there(self, event: Forecast | Progress) -> bool:
        if isinstance(event, Forecast):
            return self.stage == "forecast"
        end = event.stage == "convert" and event.done_bytes > 0.8 * event.total_bytes
        return event.stage == self.stage or (end and self.stage == "end")


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("forecast", signal.SIGKILL),
        ("convert", signal.SIGKILL),
        ("convert", signal.SIGABRT),
        ("end", signal.SIGKILL),
    ],
)
def test_a_worker_that_dies_is_one_error(
    output: Path, large: Path, partials: str, stage: str, number: signal.Signals
) -> None:
    die = Die(stage, lambda pid: os.kill(pid, number))
    with pytest.raises(QuantizeError) as caught:
        replace(output, "Q3_K_M", large, on_start=die.on_start, on_event=die.on_event)
    assert die.done
    assert number.name in caught.value.message
    assert str(large) in caught.value.message
    assert "\n" not in str(caught.value)
    assert output.read_bytes() == OLD
    assert not psutil.pid_exists(die.pid)


@pytest.mark.parametrize("stage", ["forecast", "convert", "end"])
def test_ctrl_c_ends_the_worker_and_changes_nothing(
    output: Path, large: Path, partials: str, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    workers: list[subprocess.Popen[bytes]] = []
    start = quantize.client._start

    def remember(*arguments) -> subprocess.Popen[bytes]:
        workers.append(start(*arguments))
        return workers[0]

    monkeypatch.setattr(quantize.client, "_start", remember)

    def interrupt(pid: int) -> None:
        raise KeyboardInterrupt

    die = Die(stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace(output, "Q3_K_M", large, on_start=die.on_start, on_event=die.on_event)
    assert workers[0].returncode == -signal.SIGKILL
    assert output.read_bytes() == OLD


def test_ctrl_c_during_the_check(output: Path) -> None:
    def interrupt(pid: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            Job(str(NANO)),
            [Wanted("Q8_0", output)],
            overwrite=True,
            on_event=Die("check", interrupt).on_event,
        )
    assert output.read_bytes() == OLD


def test_a_disk_that_becomes_full_in_the_middle(output: Path, large: Path, partials: str) -> None:
    """Here: the worker may write no further than its first megabyte, and has set more aside before."""
    resource = pytest.importorskip("resource", reason="only POSIX bounds the size of files")
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux bounds those of another process")

    def bound(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    die = Die("convert", bound)
    with pytest.raises(NoSpace, match=r"not enough room for .*x\.gguf"):
        replace(output, "Q3_K_M", large, on_start=die.on_start, on_event=die.on_event)
    assert die.done
    assert output.read_bytes() == OLD


def test_a_worker_whose_parent_is_gone_ends_in_the_middle(large: Path, tmp_path: Path) -> None:
    with (tmp_path / "x").open("w+b") as target:
        job = Job(str(large), (Target("Q3_K_M", "x", target.fileno()),))
        pipe = subprocess.PIPE
        command = worker_command("quantize.worker")
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, pass_fds=[target.fileno()]) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(pack(job))
            worker.stdin.flush()
            assert isinstance(decode_event(frames.read(worker.stdout) or b""), Confined)
            assert isinstance(decode_event(frames.read(worker.stdout) or b""), Forecast)
            worker.stdin.close()
            rest = worker.stdout.read()
    assert worker.returncode == 1
    assert b"Finished" not in rest


def test_a_worker_without_a_job_just_ends() -> None:
    command = worker_command("quantize.worker")
    assert subprocess.run(command, input=b"", capture_output=True, check=False).returncode == 0
    result = subprocess.run(command, input=b"\1\0\0\0x", capture_output=True, check=False)
    assert result.returncode == 2
    assert b"not a job" in result.stderr


def test_frames_of_the_protocol_round_trip() -> None:
    for event in (Failed("NoSpace", "message", "hint"), Progress("convert", "a", 1, 2)):
        assert decode_event(pack(event)[4:]) == event


def test_all_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second cannot be put in its place: the first goes again."""
    real = Partial.commit

    def commit(partial: Partial) -> None:
        if partial.output.name == "two":
            raise QuantizeError("it cannot be", "")
        real(partial)

    monkeypatch.setattr(Partial, "commit", commit)
    wanted = [Wanted("Q8_0", tmp_path / "one"), Wanted("Q4_0", tmp_path / "two")]
    with pytest.raises(QuantizeError, match="it cannot be"):
        run(Job(str(NANO)), wanted, load=False)
    assert names_in(tmp_path) == []
