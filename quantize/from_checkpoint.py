"""A checkpoint folder as a source: its tensors as GGUF names them, and the metadata that goes with them."""

from __future__ import annotations

from pathlib import Path

from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, LlamaFileType

from localai.errors import CheckpointError, UnsupportedModel
from quantize import gguf_file, metadata
from quantize.architectures import family_and_config
from quantize.architectures.base import Config, Expected, Family
from quantize.checkpoint import INDEX, Checkpoint, open_checkpoint
from quantize.safetensors import FLOATS, StoredTensor
from quantize.source import FLOAT_TYPES, Source, Tensor
from quantize.tokenizer import read_vocabulary

_TEMPLATE = "chat_template.jinja"
_SMALL = (
    INDEX,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    _TEMPLATE,
    "chat_template.json",
    "README.md",
)
_GGUF_FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
}


def open_source(path: Path, pre_tokenizer: str = "", name: str = "") -> Source:
    """The checkpoint in the folder `path`, checked as far as can be without reading its weights.

    CheckpointError or UnsupportedModel if it cannot be converted.
    """
    checkpoint = open_checkpoint(path)
    family, config = family_and_config(checkpoint.config)
    float_type = source_type(checkpoint)
    tensors = plan_tensors(checkpoint, family, config, FLOAT_TYPES[float_type])
    vocabulary = read_vocabulary(checkpoint, config.vocab_size, pre_tokenizer)
    writer = GGUFWriter(None, family.architecture)
    metadata.add_general(writer, checkpoint, tensors, name)
    family.add_metadata(writer, config, _GGUF_FILE_TYPES[float_type])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    family.add_vocabulary(writer, vocabulary, config, checkpoint.tokenizer_config)
    return Source(
        path=path,
        architecture=family.architecture,
        tensors=tensors,
        metadata=gguf_file.collected(writer),
        weight_files=tuple(dict.fromkeys(tensor.file for tensor in checkpoint.tensors.values())),
        small_files=_small_files(checkpoint),
        is_gguf=False,
    )


def _small_files(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """The files that have been read, but for the weights."""
    files = [checkpoint.folder / name for name in _SMALL]
    if "chat_template" not in checkpoint.tokenizer_config and (checkpoint.folder / _TEMPLATE).is_file():
        files += sorted(checkpoint.folder.glob("additional_chat_templates/*.jinja"))
    return tuple(file for file in files if file.is_file())


def source_type(checkpoint: Checkpoint) -> str:
    """The float type of the checkpoint's matrices: of the first that has 16 bits, else F32."""
    matrices = (tensor.dtype for tensor in checkpoint.tensors.values() if len(tensor.shape) > 1)
    return next((dtype for dtype in matrices if dtype in {"BF16", "F16"}), "F32")


def plan_tensors(
    checkpoint: Checkpoint, family: Family, config: Config, matrix: GGMLQuantizationType
) -> list[Tensor]:
    """The tensors in the order of llama.cpp's converter: generated ones, then as in the checkpoint.

    Matrices become `matrix`, vectors F32. CheckpointError if a tensor is missing, has another shape than
    the family gives it, or is not known to the family.
    """
    expected = {tensor.source: tensor for tensor in family.tensors(config)}
    missing = [t.source for t in expected.values() if not t.optional and t.source not in checkpoint.tensors]
    if missing:
        more = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise CheckpointError(f"{checkpoint.folder} lacks the tensor {missing[0]!r}{more}", _OTHER_MODEL)
    planned = [
        Tensor(name, values.shape, GGMLQuantizationType.F32, values=values)
        for name, values in family.generated(config)
    ]
    for name, stored in checkpoint.tensors.items():
        if name in expected:
            planned.append(_planned(stored, expected[name], matrix))
        elif not _is_needless(name, config):
            raise CheckpointError(
                f"{stored.file} holds the tensor {name!r}, which the model has not", _OTHER_MODEL
            )
    return planned


def _planned(stored: StoredTensor, expected: Expected, matrix: GGMLQuantizationType) -> Tensor:
    if stored.shape != expected.shape:
        raise CheckpointError(
            f"the tensor {stored.name!r} in {stored.file} has the shape {list(stored.shape)}, "
            f"but config.json asks for {list(expected.shape)}",
            _OTHER_MODEL,
        )
    if stored.dtype not in FLOATS:
        raise UnsupportedModel(
            f"the tensor {stored.name!r} in {stored.file} is of type {stored.dtype}, which is not converted",
            "Use a checkpoint in BF16, F16 or F32: publishers of such files usually have one, too",
        )
    kind = GGMLQuantizationType.F32 if len(expected.shape) == 1 else matrix
    return Tensor(expected.name, expected.shape, kind, stored, expected.head_rows)


def _is_needless(name: str, config: Config) -> bool:
    """Whether `name` is a buffer that old checkpoints hold, or the copy of a tied embedding."""
    buffers = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")
    return name.endswith(buffers) or (config.tie_word_embeddings and name == "lm_head.weight")


_OTHER_MODEL = "config.json and the weights are of different models, or the checkpoint is incomplete"
