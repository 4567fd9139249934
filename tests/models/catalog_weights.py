"""What the catalogue computes from shapes: `python -m tests.models.catalog_weights` prints it for each entry.

llama.cpp itself decides the type of each tensor (`quantize.plan`): it is shown a header with the shapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

from models import catalog
from models.catalog import Shape
from quantize import gguf_file
from quantize.architectures import FAMILIES, family_and_config
from quantize.imatrix import ImportanceMatrix
from quantize.plan import Options, planner
from quantize.source import Source, Tensor

TYPES = (
    *("BF16", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_1", "Q4_0"),
    *("Q3_K_M", "Q3_K_S", "Q2_K"),
)
"""Those that the catalogue tells the bytes of, the best first."""
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def source_of(shape: Shape, context: int) -> Source:
    """A checkpoint of that shape which has no weights."""
    family, config = family_and_config(_config(shape, context))
    tensors = [
        Tensor(name, values.shape, GGMLQuantizationType.F32, values=values)
        for name, values in family.generated(config)
    ]
    for expected in family.tensors(config):
        if not expected.optional:
            kind = GGMLQuantizationType.F32 if len(expected.shape) == 1 else GGMLQuantizationType.BF16
            tensors.append(Tensor(expected.name, expected.shape, kind))
    writer = GGUFWriter(None, family.architecture)
    family.add_metadata(writer, config, LlamaFileType.MOSTLY_BF16)
    metadata = gguf_file.collected(writer)
    return Source(Path(), family.architecture, tensors, metadata, (), (), is_gguf=False)


def parameters(shape: Shape) -> int:
    """Numbers in the checkpoint: all tensors but those that a GGUF file adds."""
    return sum(tensor.weights for tensor in source_of(shape, 1).tensors if tensor.values is None)


def weights(
    shape: Shape, context: int, types: Iterable[str] = TYPES, *, importance: bool = False
) -> dict[str, int]:
    """Bytes of all tensors of that shape by type, as llama.cpp quantizes them.

    With an `importance` matrix, it chooses other types for some tensors of Q4_0 and IQ4_XS.
    """
    source = source_of(shape, context)
    with planner(source, Options(), _importance(source) if importance else None) as plans:
        outputs = {name: plans.output(name) for name in types}
    return {
        name: sum(tensor.bytes_as(output.types[tensor.name]) for tensor in source.tensors)
        for name, output in outputs.items()
    }


def _importance(source: Source) -> ImportanceMatrix:
    """One that takes all columns of all matrices as equally important."""
    matrices = [tensor for tensor in source.tensors if len(tensor.shape) > 1]
    return ImportanceMatrix(Path(), (), 0, {one.name: np.ones(one.shape[-1], np.float32) for one in matrices})


def _config(shape: Shape, context: int) -> dict[str, Any]:
    """Its config.json. Llama models that were trained for more than 8,192 tokens scale their rotation."""
    name = next(name for name, family in FAMILIES.items() if family.architecture == shape.architecture)
    scaled = shape.architecture == "llama" and context > 8192
    return {
        "architectures": [name],
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.embedding_length,
        "intermediate_size": shape.feed_forward_length,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": context,
        "tie_word_embeddings": shape.tied,
        "rope_scaling": {**_LLAMA3, "original_max_position_embeddings": 8192} if scaled else None,
    }


def main() -> None:
    """Print `parameters` and `weights` of each entry that has a shape, as TOML."""
    for entry in catalog.entries():
        if entry.shape:
            pairs = (f"{name} = {count:_}" for name, count in weights(entry.shape, entry.context).items())
            print(f"# {entry.name}\nparameters = {parameters(entry.shape):_}\n", *pairs, sep="\n")


if __name__ == "__main__":
    main()
