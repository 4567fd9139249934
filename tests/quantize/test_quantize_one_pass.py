"""The one pass over the weights: each byte is read once, and what is wrong with one is said."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from localai.errors import CheckpointError, NoSpace, QuantizeError
from quantize import pipeline
from quantize.protocol import Forecast, Progress
from tests.quantize.doing import convert, convert_all
from tests.quantize.making import BITS, NANO, make_checkpoint, names_in, safetensors, to_bf16

# ---------------------------------------------------------------------------------------------- one pass


def read_so_far() -> int:
    """Bytes that this process has read from files, from the first to the last thread."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_the_weights_are_read_once_for_all_outputs(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", shards=2, hidden_size=512, intermediate_size=1024)
    types = {"a": "Q8_0", "b": "Q4_0", "c": "F16"}
    before = read_so_far()
    convert_all(tmp_path / "m", {})
    planned = read_so_far()
    report = convert_all(tmp_path / "m", {tmp_path / name: kind for name, kind in types.items()})
    read = (read_so_far() - planned) - (planned - before)
    hashed = sum(written.size for written in report.outputs)
    assert 0.9 * report.source_bytes < read - hashed < 1.2 * report.source_bytes


def test_every_weight_file_is_hashed_whole(tmp_path: Path) -> None:
    """Also what is not converted: headers, and tensors that GGUF has not."""
    folder = tmp_path / "m"
    make_checkpoint(folder, num_hidden_layers=1, tie_word_embeddings=True)
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", np.ones((3, 5), "<f4"))}
    (folder / "model-extra.safetensors").write_bytes(safetensors(buffer))
    report = convert(folder, tmp_path / "x.gguf", "Q8_0")
    for name in ("model.safetensors", "model-extra.safetensors"):
        assert report.inputs[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


# --------------------------------------------------------------------------------------- broken weights


def with_value(folder: Path, dtype: str, value: float, last: str = "lm_head.weight") -> Path:
    """A checkpoint whose tensor `last`, which lies at the end of its file, ends with `value`."""
    make_checkpoint(folder, dtype=dtype, hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    weights = folder / "model.safetensors"
    single = np.array([value], "<f4")
    bits = to_bf16(single) if dtype == "BF16" else single.astype(BITS[dtype])
    data = weights.read_bytes()
    weights.write_bytes(data[: -bits.nbytes] + bits.tobytes())
    return folder


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16", "Q8_0", "Q4_K_M"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number(tmp_path: Path, dtype: str, value: float, file_type: str) -> None:
    folder = with_value(tmp_path / "m", dtype, value)
    with pytest.raises(QuantizeError, match=r"holds a value that is not a finite number") as caught:
        convert(folder, tmp_path / "x.gguf", file_type)
    assert "'lm_head.weight'" in caught.value.message
    assert str(folder / "model.safetensors") in caught.value.message
    assert names_in(tmp_path) == ["m"]


@pytest.mark.parametrize(
    ("dtype", "value", "file_type", "kind"),
    [
        ("BF16", 1e6, "F16", "F16"),
        ("F32", -65520.0, "F16", "F16"),
        ("BF16", 1e38, "Q8_0", "Q8_0"),
        ("BF16", 1e38, "Q4_K_M", "Q6_K"),
        ("BF16", -3e38, "Q2_K", "Q6_K"),
        ("BF16", 1e10, "IQ4_XS", "Q6_K"),
        ("F32", 1e9, "Q8_0", "Q8_0"),
        ("BF16", 5e8, "Q6_K", "Q6_K"),
        ("F32", 3.4028235e38, "BF16", "BF16"),
    ],
)
def test_a_weight_that_no_type_can_hold(
    tmp_path: Path, dtype: str, value: float, file_type: str, kind: str
) -> None:
    """Some would become infinite, and some, unseen by ggml itself, something else."""
    folder = with_value(tmp_path / "m", dtype, value)
    with pytest.raises(QuantizeError) as caught:
        convert(folder, tmp_path / "x.gguf", file_type)
    where = f"the tensor 'lm_head.weight' in {folder / 'model.safetensors'}"
    assert caught.value.message == f"{where} has values beyond the range of {kind}"
    assert "BF16" in caught.value.hint
    assert names_in(tmp_path) == ["m"]


def test_a_weight_beyond_the_precision_of_the_rest(tmp_path: Path) -> None:
    """A matrix in F32 in a checkpoint in BF16 passes through BF16, in which its value is infinite."""
    folder = tmp_path / "m"
    values = make_checkpoint(folder, num_hidden_layers=1)
    stored = {
        name: ("BF16", to_bf16(array)) if name != "lm_head.weight" else ("F32", array.copy())
        for name, array in values.items()
    }
    stored["lm_head.weight"][1][3, 5] = 3.4028235e38
    (folder / "model.safetensors").write_bytes(safetensors(stored))
    for file_type in ("BF16", "Q8_0"):
        with pytest.raises(
            QuantizeError, match=r"'lm_head\.weight' in .* has values beyond the range of BF16"
        ):
            convert(folder, tmp_path / "x.gguf", file_type)
    convert(folder, tmp_path / "x.gguf", "F32")


@pytest.mark.parametrize(
    ("value", "file_type"), [(65280.0, "F16"), (3e38, "BF16"), (3e38, "F32"), (8e6, "Q8_0"), (2e8, "Q6_K")]
)
def test_large_weights_that_fit(tmp_path: Path, value: float, file_type: str) -> None:
    convert(with_value(tmp_path / "m", "BF16", value), tmp_path / "x", file_type)
    assert names_in(tmp_path) == ["m", "x"]


def test_a_weight_file_that_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_QUIET_BYTES", 1)
    folder = tmp_path / "m"
    make_checkpoint(folder)

    def shrink(event: Forecast | Progress) -> None:
        if isinstance(event, Progress):
            os.truncate(folder / "model.safetensors", 50_000)

    with pytest.raises(CheckpointError, match=r"model\.safetensors became shorter while it was read"):
        convert(folder, tmp_path / "x.gguf", "Q8_0", on_event=shrink)
    assert names_in(tmp_path) == ["m"]


# -------------------------------------------------------------------------------------------- full disks


@pytest.mark.parametrize("call", ["pwrite", "posix_fallocate"])
def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    if not hasattr(os, call):
        pytest.skip(f"this system has no {call}")
    monkeypatch.setattr(pipeline, "_QUIET_BYTES", 1)
    events: list[Forecast | Progress] = []

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(NoSpace, match=r"not enough room for .*x\.gguf"):
        convert(NANO, tmp_path / "x.gguf", "Q8_0", on_event=events.append)
    assert names_in(tmp_path) == []
    assert [type(event) for event in events] == [Forecast]


def test_a_disk_that_becomes_full_under_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_checkpoint(tmp_path / "m")
    real = os.pwrite
    done: list[int] = []

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        done.append(offset)
        if len(done) > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(NoSpace):
        convert(tmp_path / "m", tmp_path / "x.gguf", "Q8_0", threads=2)
    assert names_in(tmp_path) == ["m"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="there is nothing to allocate with")
def test_a_disk_that_cannot_set_room_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    convert(NANO, tmp_path / "usual.gguf", "Q8_0")
    monkeypatch.setattr(os, "posix_fallocate", cannot)
    convert(NANO, tmp_path / "x.gguf", "Q8_0")
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "usual.gguf").read_bytes()


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    make_checkpoint(tmp_path / "m")
    convert(tmp_path / "m", tmp_path / "usual.gguf", "Q8_0")
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:1000], offset))
    convert(tmp_path / "m", tmp_path / "x.gguf", "Q8_0")
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "usual.gguf").read_bytes()


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


FULL_DISK = """
import os, sys
from pathlib import Path
from localai.errors import NoSpace
from quantize import client
from quantize.protocol import Job
real = client.free_bytes
for free in (real, lambda folder: 10**12):
    client.free_bytes = free
    try:
        client.run(Job(sys.argv[1]), [client.Wanted("Q8_0", Path("/mnt/x.gguf"))])
    except NoSpace as error:
        print(error.message)
    assert os.listdir("/mnt") == [], os.listdir("/mnt")
"""


def test_a_disk_that_is_really_full() -> None:
    if not can_mount():
        pytest.skip("this machine does not let users mount a small disk (unshare -rm)")
    command = 'mount -t tmpfs -o size=3m none /mnt && exec "$0" -c "$1" "$2"'
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, sys.executable, FULL_DISK, str(NANO)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    before, during = result.stdout.splitlines()
    assert before == "/mnt has room for 3.1 MB, but the result takes 4.5 MB"
    assert during == "there is not enough room for /mnt/x.gguf"
