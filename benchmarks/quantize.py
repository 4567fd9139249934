"""Quantizing a checkpoint with `localai quantize` against llama.cpp's own two commands, as ratios.

Builds a random BF16 checkpoint with the dimensions of DeepSeek-R1-Distill-Qwen-1.5B and R1's own tokenizer,
cut to a few layers (1.3 GB with the default of 4). For each type it runs, in turns: ours       localai
quantize --no-check: one command, as upstream does not load what it writes checked    localai quantize: the
same, and the result is loaded in the engine and generates upstream   convert_hf_to_gguf.py, then
llama-quantize and prints the wall time of upstream as a multiple of ours, the most memory that all
processes of a side held at once, and the bytes that each wrote beyond the result. The claims: wall time at
most 1/4 for Q8_0 and 1/1.6 for Q4_K_M, at most 700 MB of memory, and no byte beyond the result. Each side's
result must be the same file.

Usage: python benchmarks/quantize.py --convert convert_hf_to_gguf.py --quantize llama-quantize [--python
PYTHON] [--types Q8_0 Q4_K_M] [--rounds 3] [--layers 4] [--folder FOLDER] [--json] `--python` runs the
converter, which needs torch and transformers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

TOKENIZER = Path(__file__).parents[1] / "tests" / "data" / "r1-tokenizer"
VOCABULARY, WIDTH, MIDDLE, HEADS, KV_HEADS, HEAD = 151_936, 1536, 8960, 12, 2, 128


@dataclass(frozen=True)
class Run:
    """What one side took: seconds, and bytes of memory and of writing."""

    seconds: float
    peak_memory: int
    written_beyond_result: int
    sha256: str


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="localai-benchmark-", dir=arguments.folder) as name:
        folder = Path(name)
        source = folder / "checkpoint"
        make_checkpoint(source, arguments.layers)
        found = {kind: _compare(kind, source, folder, arguments) for kind in arguments.types}
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for kind, result in found.items():
        _print(kind, result)


def make_checkpoint(folder: Path, layers: int, seed: int = 0) -> None:
    """Write the checkpoint: weights with a normal distribution of the size that trained ones have."""
    folder.mkdir()
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "hidden_size": WIDTH,
        "intermediate_size": MIDDLE,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes(lzma.decompress((TOKENIZER / "tokenizer.json.xz").read_bytes()))
    shutil.copyfile(TOKENIZER / "tokenizer_config.json", folder / "tokenizer_config.json")
    shapes = dict(sorted(_shapes(layers)))  # the safetensors library puts them in this order
    header, end = {}, 0
    for tensor, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    random = np.random.default_rng(seed)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            for count in _portions(int(np.prod(shape))):
                values = random.standard_normal(count, np.float32) * np.float32(0.03)
                file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def _portions(count: int) -> list[int]:
    step = 8 << 20
    return [min(step, count - start) for start in range(0, count, step)]


def _shapes(layers: int) -> list[tuple[str, list[int]]]:
    found: list[tuple[str, list[int]]] = [("model.embed_tokens.weight", [VOCABULARY, WIDTH])]
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name, rows in (("q", HEADS * HEAD), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)):
            found += [
                (f"{at}.self_attn.{name}_proj.weight", [rows, WIDTH]),
                (f"{at}.self_attn.{name}_proj.bias", [rows]),
            ]
        found += [
            (f"{at}.self_attn.o_proj.weight", [WIDTH, HEADS * HEAD]),
            (f"{at}.mlp.gate_proj.weight", [MIDDLE, WIDTH]),
            (f"{at}.mlp.up_proj.weight", [MIDDLE, WIDTH]),
            (f"{at}.mlp.down_proj.weight", [WIDTH, MIDDLE]),
            (f"{at}.input_layernorm.weight", [WIDTH]),
            (f"{at}.post_attention_layernorm.weight", [WIDTH]),
        ]
    return [*found, ("model.norm.weight", [WIDTH]), ("lm_head.weight", [VOCABULARY, WIDTH])]


def _compare(kind: str, source: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    runs: dict[str, list[Run]] = {"ours": [], "checked": [], "upstream": []}
    for _ in range(arguments.rounds):
        for side, done in runs.items():
            if side == "upstream" and not arguments.convert:
                continue
            done.append(_measured(side, kind, source, folder, arguments))
    shown: dict[str, object] = {side: [asdict(run) for run in done] for side, done in runs.items()}
    if not arguments.convert:
        return shown
    for side in ("ours", "checked"):
        pairs = zip(runs[side], runs["upstream"], strict=True)
        ratios = [theirs.seconds / our.seconds for our, theirs in pairs]
        shown[f"{side}_speedup"] = statistics.median(ratios)
    shown["same_file"] = len({run.sha256 for done in runs.values() for run in done}) == 1
    return shown


def _measured(side: str, kind: str, source: Path, folder: Path, arguments: argparse.Namespace) -> Run:
    result, between = folder / "result.gguf", folder / "between.gguf"
    ours = [sys.executable, "-m", "localai", "quantize", str(source), "--type", kind, "-o", str(result)]
    commands = {
        "ours": [[*ours, "--no-check"]],
        "checked": [ours],
        "upstream": [
            [
                arguments.python,
                arguments.convert,
                str(source),
                "--outtype",
                "bf16",
                "--outfile",
                str(between),
            ],
            [arguments.quantize, str(between), str(result), kind],
        ],
    }
    memory = _Memory()
    before, started = _written(), time.perf_counter()
    for command in commands[side]:
        memory.watch(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), command)
    seconds = time.perf_counter() - started
    beyond = _written() - before - result.stat().st_size
    with result.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    result.unlink()
    between.unlink(missing_ok=True)
    return Run(round(seconds, 2), memory.peak, beyond, digest)


class _Memory:
    """The most that a process and its descendants held at once, by looking every 20 ms."""

    def __init__(self) -> None:
        self.peak = 0

    def watch(self, process: subprocess.Popen[bytes], command: list[str]) -> None:
        """Wait for `process`, which must succeed."""
        over = threading.Event()
        watcher = threading.Thread(target=self._look, args=(psutil.Process(process.pid), over))
        watcher.start()
        code = process.wait()
        over.set()
        watcher.join()
        if code:
            sys.exit(f"this ended with exit code {code}: {' '.join(command)}")

    def _look(self, root: psutil.Process, over: threading.Event) -> None:
        while not over.wait(0.02):
            total = 0
            try:
                for process in [root, *root.children(recursive=True)]:
                    total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            self.peak = max(self.peak, total)


def _written() -> int:
    """Bytes that this process and those it has waited for have written, to files and to pipes."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def _print(kind: str, result: dict[str, object]) -> None:
    print(f"{kind}:")
    for side in ("ours", "checked", "upstream"):
        runs = result[side]
        assert isinstance(runs, list)
        for run in runs:
            print(
                f"  {side:9} {run['seconds']:7.2f} s  {run['peak_memory'] / 1e6:7.0f} MB  "
                f"{run['written_beyond_result'] / 1e6:9.3f} MB beyond the result"
            )
    if "same_file" in result:
        print(f"  upstream takes {result['ours_speedup']:.2f} times as long")
        print(f"  and {result['checked_speedup']:.2f} times as long as ours with its check")
        print(f"  the same file, byte for byte: {'yes' if result['same_file'] else 'NO'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--convert", help="llama.cpp's convert_hf_to_gguf.py; without it, only ours runs")
    parser.add_argument("--quantize", default="llama-quantize")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--types", nargs="+", default=["Q8_0", "Q4_K_M"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to work; default: the temporary folder")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
