"""Makes tests/data/golden-quantize.json: what llama.cpp's own tools make of checkpoints.py's checkpoints.

    python tests/quantize/make_golden.py --convert LLAMA_CPP/convert_hf_to_gguf.py \\
        --quantize LLAMA_CPP/build/bin/llama-quantize [--python PYTHON] > tests/data/golden-quantize.json

PYTHON runs the converter: it needs torch and transformers. For each recipe there is a list of cases, each
with the digests (digests.py) of the file, or "refused" where llama.cpp makes none:

    "tool": "convert": the converter wrote it with `--outtype` "type"
    "tool": "quantize": llama-quantize made it from the file in the checkpoint's own precision, with "options"
    and, where "imatrix" is true, with `--imatrix imatrix.gguf`
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.quantize.checkpoints import CONFIGS, DTYPES, IMATRIX, RECIPES, write_imatrix
from tests.quantize.digests import digest

FLOATS = ("F32", "F16", "BF16")
TYPES = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M", "Q4_0", "Q4_1", "Q4_K_S"),
    *("Q4_K_M", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q2_K", "Q2_K_S", "IQ4_NL", "IQ4_XS", "IQ3_XXS", "IQ3_XS"),
    *("IQ3_S", "IQ3_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0"),
)
FEWER_TYPES = {"llama-deep-equal": ("Q4_K_M", "Q3_K_S", "Q3_K_M", "Q2_K")}
WITH_IMATRIX = ("qwen2-untied", "qwen3-layers", "llama-tied", "llama-narrow")
SLOW = {"IQ3_XXS", "IQ3_XS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ1_S", "IQ1_M"}
"""Types that take seconds before the first weight: two recipes with an importance matrix have them."""
WITHOUT_SLOW = ("llama-tied",)
WITH_OPTIONS = ("qwen2-untied", "qwen3-layers")
OPTIONS = (
    ("Q4_K_M", "--pure"),
    ("Q3_K_M", "--pure"),
    ("Q4_K_M", "--output-tensor-type q8_0"),
    ("Q4_K_M", "--leave-output-tensor"),
    ("Q4_K_M", "--token-embedding-type q5_0"),
    ("Q3_K_L", "--output-tensor-type q6_k --token-embedding-type q8_0"),
    ("Q4_K_S", "--tensor-type attn_v=q6_k"),
    ("Q4_K_M", r"--tensor-type blk\.[01]\.ffn_down=q5_k --tensor-type attn_k=f16"),
    ("Q8_0", "--pure --token-embedding-type q4_k"),
)

# The converter knows pre-tokenizers by a hash over their vocabulary; it cannot know that of a test's.
_CONVERT = """
import runpy, sys
from pathlib import Path
script = sys.argv[1]
sys.path.insert(0, str(Path(script).parent))
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "deepseek-r1-qwen"
sys.argv = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""


def main() -> None:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--convert", type=Path, required=True, help="convert_hf_to_gguf.py")
    parser.add_argument("--quantize", type=Path, required=True, help="llama-quantize")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs the converter")
    parser.add_argument("--only", choices=list(CONFIGS), nargs="*", help="these recipes, to try it out")
    tools = parser.parse_args()
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in tools.only or CONFIGS:
            golden[name] = list(_cases(name, Path(folder), tools))
    print("{")
    for name, cases in golden.items():
        lines = ",\n".join(f"  {json.dumps(case)}" for case in cases)
        print(f" {json.dumps(name)}: [\n{lines}\n ]{',' if name != list(golden)[-1] else ''}")
    print("}")


def _cases(name: str, folder: Path, tools: argparse.Namespace) -> Iterator[dict[str, Any]]:
    RECIPES[name](folder / name)
    write_imatrix(name, folder / IMATRIX)
    own = next(dtype for dtype, said in DTYPES.items() if said == CONFIGS[name]["torch_dtype"])
    for kind in FLOATS:
        yield {"tool": "convert", "type": kind, **_converted(name, kind, f"{kind}.gguf", folder, tools)}
    for kind in FEWER_TYPES.get(name, TYPES):
        yield _quantized(own, kind, [], folder, tools)
    if name in WITH_IMATRIX:
        for kind in TYPES:
            if not (name in WITHOUT_SLOW and kind in SLOW):
                yield _quantized(own, kind, [], folder, tools, imatrix=True)
    if name in WITH_OPTIONS:
        for kind, options in OPTIONS:
            yield _quantized(own, kind, options.split(), folder, tools)


def _converted(name: str, kind: str, output: str, folder: Path, tools: argparse.Namespace) -> dict[str, str]:
    script = str(tools.convert.resolve())
    arguments = [name, "--outtype", kind.lower(), "--outfile", output]
    if not _run([tools.python, "-c", _CONVERT, script, *arguments], folder):
        raise SystemExit(f"the converter failed on {name}")
    return digest(folder / output)


def _quantized(
    own: str,
    kind: str,
    options: list[str],
    folder: Path,
    tools: argparse.Namespace,
    imatrix: bool = False,
) -> dict[str, Any]:
    case: dict[str, Any] = {"tool": "quantize", "type": kind}
    if imatrix:
        case["imatrix"] = True
    if options:
        case["options"] = options
    given = [*options, *(["--imatrix", IMATRIX] if imatrix else [])]
    output = folder / "quantized.gguf"
    output.unlink(missing_ok=True)
    done = _run([str(tools.quantize.resolve()), *given, f"{own}.gguf", output.name, kind, "2"], folder)
    print(f"{kind} {' '.join(given)} {'' if done else 'refused'}", file=sys.stderr)
    return {**case, **(digest(output) if done else {"refused": True})}


def _run(command: list[str], folder: Path) -> bool:
    """Whether `command` succeeds in `folder`; what it says is shown only if not."""
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-4:]), file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    main()
