"""`localai quantize --optimize` against llama.cpp's recipes, at exactly their sizes and with the same matrix.

For each `--type`: the file of that recipe, and one of the types that `--optimize` finds for the same size;
both are compared with the source on the evaluation text, which the choice has not seen. `--questions N` also
asks both as many questions, and each uniform type that is no larger. `--noise` first spreads the weights of a
GGUF in F16 evenly over a step of 4 bits: a model whose weights were once quantized has types that lose
nothing, and the noise takes that away. The claims: the mean KL divergence is at most 0.9 of the recipe's, and
as many questions right as with the best uniform type.

Usage: python benchmarks/optimize.py SOURCE [--type Q4_K_M --type Q3_K_M] [--imatrix FILE] [--chunks 8] ...
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import print_json

from models.gguf import read_header

TYPES = ("Q4_K_M", "Q3_K_M")
UNIFORM = ("Q8_0", "Q6_K", "Q5_K_S", "Q4_K_S", "IQ4_XS", "Q4_0", "Q3_K_S", "IQ3_S", "Q2_K")
"""What has one type for nearly all: `--pure` makes it of all that can have it."""
CLAIM = "at most 0.9"
_STEPS = 15
"""Between the values of 4 bits."""
_BLOCK = 32


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="localai-", dir=arguments.folder) as folder:
        source = Path(arguments.source).absolute()
        if arguments.noise:
            source = _noisy(source, Path(folder))
        found = [_measured(source, kind, Path(folder), arguments) for kind in arguments.type or TYPES]
    if arguments.json:
        print_json({"source": arguments.source, "claim": CLAIM, "types": found})
        return
    for one in found:
        print(f"{one['type']}: ratio {one['ratio']:.3f} of the mean KL divergences, claim: {CLAIM}")
        for name in ("optimized", "recipe"):
            part = one[name]
            right = f", {part['right']} of {part['asked']} right" if "right" in part else ""
            print(f"  {name}: {part['size']:,} bytes, {part['kl']:.5f} +- {part['kl_stderr']:.5f}{right}")
        for name, right in one.get("uniform", {}).items():
            print(f"  {name} for all: {right} right")


def _arguments() -> argparse.Namespace:
    found = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    found.add_argument("source", help="a checkpoint folder or a GGUF file in floats")
    found.add_argument("--type", action="append", help=f"a recipe of llama.cpp; default: {', '.join(TYPES)}")
    found.add_argument("--imatrix", default="auto", help="the importance matrix for both")
    found.add_argument("--calibrate", help="the calibration text, as for localai quantize")
    found.add_argument("--chunks", type=int, default=8, help="of the evaluation text")
    found.add_argument("--text", help="evaluate on this text")
    found.add_argument("--questions", type=int, default=0, help="ask so many")
    found.add_argument("--threads", type=int)
    found.add_argument("--noise", action="store_true", help="spread the weights over a step of 4 bits first")
    found.add_argument("--folder", help="where the files lie meanwhile")
    found.add_argument("--json", action="store_true")
    return found.parse_args()


def _measured(source: Path, kind: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    matrix = ["--imatrix", arguments.imatrix]
    matrix += ["--calibrate", arguments.calibrate] if arguments.calibrate else []
    recipe, mixed = folder / f"{kind}.gguf", folder / f"{kind}-size.gguf"
    _localai("quantize", source, "--type", kind, *matrix, "--no-check", "-o", recipe, arguments=arguments)
    size = recipe.stat().st_size
    limits = ["--max-size", size, "--chunks", arguments.chunks]
    _localai("quantize", source, "--optimize", *limits, *matrix, "-o", mixed, arguments=arguments)
    reference = _reference(source, folder, arguments)
    found: dict[str, Any] = {
        "type": kind,
        "recipe": _loss(recipe, reference, arguments),
        "optimized": _loss(mixed, reference, arguments),
    }
    found["ratio"] = found["optimized"]["kl"] / found["recipe"]["kl"]
    if arguments.questions:
        for name, path in (("recipe", recipe), ("optimized", mixed)):
            found[name] |= _answers(path, arguments)
        found["uniform"] = _uniform(source, size, folder, matrix, arguments)
    return found


def _reference(source: Path, folder: Path, arguments: argparse.Namespace) -> Path:
    if source.is_file():
        return source
    path = folder / "reference.gguf"
    if not path.exists():
        _localai("quantize", source, "--type", "BF16", "--no-check", "-o", path, arguments=arguments)
    return path


def _loss(path: Path, reference: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    words = ["--reference", reference, "--chunks", arguments.chunks]
    words += ["--text", arguments.text] if arguments.text else []
    report = _localai("evaluate", path, *words, arguments=arguments)
    return {
        "size": path.stat().st_size,
        "kl": report["kl"]["mean"],
        "kl_stderr": report["kl"]["mean_stderr"],
        "top1": report["top1_agreement"],
        "perplexity_ratio": report["perplexity_ratio"],
    }


def _answers(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    report = _localai("evaluate", path, "--tasks", "--questions", arguments.questions, arguments=arguments)
    return {"right": report["right"], "asked": report["asked"]}


def _uniform(
    source: Path, size: int, folder: Path, matrix: list[str], arguments: argparse.Namespace
) -> dict[str, int]:
    """How many questions each type answers rightly that takes no more when all matrices have it."""
    found = {}
    for kind in UNIFORM:
        path = folder / f"{kind}-pure.gguf"
        words = ["--type", kind, "--pure", *matrix, "--no-check", "--overwrite", "-o", path]
        _localai("quantize", source, *words, arguments=arguments)
        if path.stat().st_size <= size:
            found[kind] = int(_answers(path, arguments)["right"])
    return found


def _noisy(source: Path, folder: Path) -> Path:
    """A copy of a GGUF in F16 with each weight of a matrix moved by up to half a step of 4 bits."""
    path, random = folder / "noisy.gguf", np.random.default_rng(20_250_120)
    shutil.copyfile(source, path)
    header = read_header(source)
    data = np.memmap(path, np.uint8, "r+")
    for tensor in header.tensors:
        if len(tensor.shape) > 1 and tensor.type_name == "F16":
            start = header.data_offset + tensor.offset
            weights = data[start : start + tensor.size].view("<f2").reshape(-1, _BLOCK)
            wide = weights.astype(np.float32)
            step = (wide.max(axis=1) - wide.min(axis=1))[:, None] / _STEPS
            weights[:] = wide + step * random.uniform(-0.5, 0.5, wide.shape)
    data.flush()
    return path


def _localai(command: str, *words: object, arguments: argparse.Namespace) -> dict[str, Any]:
    threads = ["--threads", str(arguments.threads)] if arguments.threads else []
    done = subprocess.run(
        [sys.executable, "-m", "localai", command, *map(str, words), *threads, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
