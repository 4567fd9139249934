"""Makes tests/data/golden-recipes.json: what llama-quantize makes of checkpoints.py's checkpoints by rules.

    python tests/quantize/make_golden_recipes.py LLAMA_CPP/build/bin/llama-quantize \\
        > tests/data/golden-recipes.json

llama-quantize gets the rules of `quantize.recipe.patterns` as its --tensor-type-file, and starts from the
file in the checkpoint's own precision that we make: that it is the converter's, test_quantize_golden.py
shows.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from models.ggml_types import TENSOR_TYPES
from quantize import client, recipe
from quantize.client import Wanted
from quantize.protocol import Job
from tests.quantize.checkpoints import CONFIGS, DTYPES, IMATRIX, RECIPES, write_imatrix
from tests.quantize.digests import digest

COMMON = (
    *("F16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_0"),
    *("IQ4_NL", "IQ4_XS", "Q3_K", "IQ3_S", "Q2_K"),
)
NEEDY = ("IQ3_XXS", "IQ2_XS")
"""The tables of the others take seconds to make, in each process that runs the test."""
CASES = {
    "qwen2-untied": ("Q4_K_M", False),
    "qwen2-tied": ("IQ3_XXS", True),
    "qwen3-layers": ("Q3_K_M", False),
    "llama-narrow": ("Q5_K_S", False),
    "llama-deep": ("Q4_0", False),
}
"""The file type, and whether there is an importance matrix."""


def main() -> None:
    """Print the JSON."""
    found = {name: _case(name, *how, Path(sys.argv[1]).resolve()) for name, how in CASES.items()}
    lines = (f" {json.dumps(name)}: {json.dumps(case)}" for name, case in found.items())
    print("{\n" + ",\n".join(lines) + "\n}")


def _case(name: str, file_type: str, imatrix: bool, tool: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        RECIPES[name](folder / name)
        write_imatrix(name, folder / IMATRIX)
        own = next(kind for kind, said in DTYPES.items() if said == CONFIGS[name]["torch_dtype"])
        client.run(Job(str(folder / name)), [Wanted(own, folder / "own.gguf")], load=False)
        matrices = client.errors(Job(str(folder / name)), [8], rows=1)[1]
        types = _types(list(matrices), imatrix, random.Random(name))
        rules = [f"{pattern}={TENSOR_TYPES[kind].name}" for pattern, kind in recipe.patterns(types)]
        (folder / "rules.txt").write_text("\n".join(rules))
        words = ["--tensor-type-file", "rules.txt", *(["--imatrix", IMATRIX] if imatrix else [])]
        command = [tool, *words, "own.gguf", "made.gguf", file_type, "2"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        how = {"file_type": file_type, "imatrix": imatrix, "layers": CONFIGS[name]["num_hidden_layers"]}
        return {**how, "types": types, **digest(folder / "made.gguf")}


def _types(matrices: list[str], imatrix: bool, draw: random.Random) -> dict[str, str]:
    """Any for any; those that need an importance matrix only where there is one."""
    inner = (*COMMON, *NEEDY) if imatrix else COMMON
    return {name: draw.choice(inner if name.startswith("blk.") else COMMON) for name in matrices}


if __name__ == "__main__":
    main()
