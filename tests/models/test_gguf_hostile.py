"""Hostile GGUF headers: each is refused, at once, with an error of ours."""

from __future__ import annotations

import math
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.mutants import Mutants
from localai.errors import ModelFileError, UnsupportedModel
from models.gguf import Header, check_supported, read_header

ROOT = Path(__file__).parents[2]


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def number(key: bytes, value: int) -> bytes:
    return pair(key, 4, struct.pack("<I", value))


def single(key: bytes, value: float) -> bytes:
    return pair(key, 6, struct.pack("<f", value))


def array(key: bytes, kind: int, count: int, items: bytes = b"") -> bytes:
    return pair(key, 9, struct.pack("<IQ", kind, count) + items)


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dimensions = b"".join(struct.pack("<Q", length) for length in shape)
    return text(name) + struct.pack("<I", len(shape)) + dimensions + struct.pack("<IQ", kind, offset)


def gguf(
    pairs: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    *,
    pair_count: int | None = None,
    tensor_count: int | None = None,
    data: int = 4096,
) -> bytes:
    """A file of these parts; the counts are those of the lists unless something else is claimed."""
    pairs, tensors = pairs or [], tensors or []
    pair_count = len(pairs) if pair_count is None else pair_count
    tensor_count = len(tensors) if tensor_count is None else tensor_count
    head = b"GGUF" + struct.pack("<IQQ", 3, tensor_count, pair_count) + b"".join(pairs + tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


MALFORMED = {
    "magic alone": b"GGUF",
    "version cut": b"GGUF\x03\x00",
    "counts cut": b"GGUF" + struct.pack("<IQ", 3, 0),
    "2^30 array elements in 64 bytes": gguf([array(b"a", 4, 1 << 30)], data=0).ljust(64, b"\0")[:64],
    "2^30 strings in 64 bytes": gguf([array(b"a", 8, 1 << 30)], data=0).ljust(64, b"\0")[:64],
    "2^64-1 array elements": gguf([array(b"a", 0, (1 << 64) - 1)]),
    "2^61 elements of 8 bytes": gguf([array(b"a", 10, 1 << 61)]),
    "string of 2^62": gguf([pair(b"a", 8, struct.pack("<Q", 1 << 62))]),
    "string of 2^64-1": gguf([pair(b"a", 8, struct.pack("<Q", (1 << 64) - 1))]),
    "string that wraps to 0": gguf([pair(b"a", 8, struct.pack("<Q", (1 << 64) - 8))]),
    "string one byte over the end": gguf([pair(b"a", 8, struct.pack("<Q", 4096 + 30))]),
    "string in an array over the end": gguf([array(b"a", 8, 2, text(b"x") + struct.pack("<Q", 1 << 40))]),
    "string in a long array over the end": gguf(
        [array(b"a", 8, 100, text(b"x") * 99 + struct.pack("<Q", 1 << 62))]
    ),
    "more strings than any model has": gguf([array(b"a", 8, (1 << 20) + 1, bytes(8 * ((1 << 20) + 1)))]),
    "more tokens than any model has": gguf(
        [array(b"tokenizer.ggml.tokens", 8, (3 << 17) + 1, bytes(8 * ((3 << 17) + 1)))]
    ),
    "tokens of 17 MB": gguf([array(b"tokenizer.ggml.tokens", 8, 17, text(bytes(1 << 20)) * 17)]),
    "a token over the end": gguf(
        [array(b"tokenizer.ggml.tokens", 8, 2, text(b"a") + struct.pack("<Q", 1 << 62))]
    ),
    "key of 2^62": gguf([struct.pack("<Q", 1 << 62)]),
    "key over 65535": gguf([number(b"k" * 65536, 1)]),
    "empty key": gguf([number(b"", 1)]),
    "key not UTF-8": gguf([number(b"\xff\xfe", 1)]),
    "duplicate key": gguf([number(b"a", 1), number(b"a", 2)]),
    "unknown type": gguf([pair(b"a", 13, bytes(8))]),
    "type 2^32-1": gguf([pair(b"a", 0xFFFFFFFF, bytes(8))]),
    "unknown element type": gguf([array(b"a", 13, 1, bytes(8))]),
    "array of arrays": gguf([array(b"a", 9, 1, struct.pack("<IQ", 4, 1) + bytes(4))]),
    "arrays 1000 deep": gguf([pair(b"a", 9, struct.pack("<IQ", 9, 1) * 1000)]),
    "2^63 entries": gguf(pair_count=1 << 63),
    "2^32 entries": gguf(pair_count=1 << 32),
    "16,385 entries": gguf([number(b"%d" % n, 1) for n in range(16_385)]),
    "one entry more than there is": gguf([number(b"a", 1)], pair_count=2, data=0),
    "2^63 tensors": gguf(tensor_count=1 << 63),
    "2^32 tensors": gguf(tensor_count=1 << 32),
    "16,385 tensors": gguf(tensors=[tensor(b"%d" % n, (8,), offset=32 * n) for n in range(16_385)]),
    "one tensor more than there is": gguf(tensors=[tensor(b"a", (32,))], tensor_count=2, data=128),
    "no dimensions": gguf(tensors=[tensor(b"a", ())]),
    "5 dimensions": gguf(tensors=[tensor(b"a", (1, 1, 1, 1, 1))]),
    "2^32-1 dimensions": gguf(tensors=[text(b"a") + struct.pack("<I", 0xFFFFFFFF)]),
    "dimension 0": gguf(tensors=[tensor(b"a", (32, 0))]),
    "dimension 2^63": gguf(tensors=[tensor(b"a", (1 << 63,))]),
    "product wraps to 0": gguf(tensors=[tensor(b"a", (1 << 32, 1 << 32))]),
    "product wraps to 64": gguf(tensors=[tensor(b"a", (1 << 33, (1 << 31) + 1, 64))]),
    "bytes overflow": gguf(tensors=[tensor(b"a", ((1 << 63) - 1,), kind=28)]),
    "padding overflows": gguf(tensors=[tensor(b"a", ((1 << 61) - 1,), kind=28), tensor(b"b", (8,))]),
    "sum of sizes overflows": gguf(
        tensors=[tensor(b"a", ((1 << 60),), 28), tensor(b"b", (1 << 60,), 28, offset=1 << 63)]
    ),
    "unknown tensor type": gguf(tensors=[tensor(b"a", (32,), kind=99)]),
    "removed tensor type": gguf(tensors=[tensor(b"a", (32,), kind=4)]),
    "row not whole blocks": gguf(tensors=[tensor(b"a", (33,), kind=8)]),
    "no tensor name": gguf(tensors=[tensor(b"", (32,))]),
    "tensor name of 64": gguf(tensors=[tensor(b"n" * 64, (32,))]),
    "tensor name not UTF-8": gguf(tensors=[tensor(b"\xc3", (32,))]),
    "duplicate tensor": gguf(tensors=[tensor(b"a", (8,)), tensor(b"a", (8,), offset=32)]),
    "offset not aligned": gguf(tensors=[tensor(b"a", (8,), offset=4)]),
    "offset beyond the file": gguf(tensors=[tensor(b"a", (8,), offset=1 << 40)]),
    "offset near 2^64": gguf(tensors=[tensor(b"a", (8,), offset=(1 << 64) - 32)]),
    "tensors overlap": gguf(tensors=[tensor(b"a", (8,)), tensor(b"b", (8,))]),
    "gap between tensors": gguf(tensors=[tensor(b"a", (8,)), tensor(b"b", (8,), offset=64)]),
    "tensor larger than the file": gguf(tensors=[tensor(b"a", (1 << 20,))]),
    "tensor of exabytes": gguf(tensors=[tensor(b"a", (1 << 60,))]),
    "alignment 0": gguf([number(b"general.alignment", 0)]),
    "alignment 16": gguf([number(b"general.alignment", 16)]),
    "alignment 33": gguf([number(b"general.alignment", 33)]),
    "alignment 2^31": gguf([number(b"general.alignment", 1 << 31)]),
    "alignment a string": gguf([pair(b"general.alignment", 8, text(b"32"))]),
    "alignment a truth": gguf([pair(b"general.alignment", 7, b"\x01")]),
}


@contextmanager
def counting_calls() -> Iterator[list[str]]:
    """The calls that are made meanwhile: a measure of work that no other program on the machine can spoil."""
    calls: list[str] = []
    sys.setprofile(lambda _frame, event, _argument: calls.append(event))
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_headers_are_refused_at_once(tmp_path: Path, case: str) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(MALFORMED[case])
    with counting_calls() as calls, pytest.raises(ModelFileError) as caught:
        read_header(path)
    assert len(calls) < 10_000
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_the_parts_make_a_file_that_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(gguf([number(b"a", 1)], [tensor(b"a", (8,)), tensor(b"b", (32, 4), 8, 32)]))
    assert len(read_header(path).tensors) == 2


def test_a_huge_sparse_file_is_not_walked_through(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    path.write_bytes(gguf([array(b"a", 8, 1 << 33)], data=0))
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with counting_calls() as calls, pytest.raises(ModelFileError, match="128 MiB"):
        read_header(path)
    assert len(calls) < 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


MODEL = {
    b"general.architecture": pair(b"general.architecture", 8, text(b"qwen2")),
    b"block_count": number(b"qwen2.block_count", 2),
    b"embedding_length": number(b"qwen2.embedding_length", 64),
    b"context_length": number(b"qwen2.context_length", 2048),
    b"head_count": number(b"qwen2.attention.head_count", 4),
    b"head_count_kv": number(b"qwen2.attention.head_count_kv", 2),
    b"tokens": array(b"tokenizer.ggml.tokens", 8, 2, text(b"a") + text(b"b")),
}
TENSORS = [tensor(b"token_embd.weight", (64, 2))]

EPSILON = b"qwen2.attention.layer_norm_rms_epsilon"
IMPOSSIBLE = {
    "no architecture": {b"general.architecture": b""},
    "gemma3": {b"general.architecture": pair(b"general.architecture", 8, text(b"gemma3"))},
    "an architecture with escapes": {
        b"general.architecture": pair(b"general.architecture", 8, text(b"\x1b]0;x\x07"))
    },
    "an adapter": {b"general.type": pair(b"general.type", 8, text(b"adapter"))},
    "no layers": {b"block_count": number(b"qwen2.block_count", 0)},
    "100000 layers": {b"block_count": number(b"qwen2.block_count", 100_000)},
    "layers not stated": {b"block_count": b""},
    "layers as text": {b"block_count": pair(b"qwen2.block_count", 8, text(b"2"))},
    "negative layers": {b"block_count": pair(b"qwen2.block_count", 5, struct.pack("<i", -1))},
    "no width": {b"embedding_length": number(b"qwen2.embedding_length", 0)},
    "width 2^32-1": {b"embedding_length": number(b"qwen2.embedding_length", 0xFFFFFFFF)},
    "no heads": {b"head_count": number(b"qwen2.attention.head_count", 0)},
    "heads that do not divide": {b"head_count": number(b"qwen2.attention.head_count", 6)},
    "no KV heads": {b"head_count_kv": number(b"qwen2.attention.head_count_kv", 0)},
    "KV heads that do not divide": {b"head_count_kv": number(b"qwen2.attention.head_count_kv", 3)},
    "heads of one layer 0": {
        b"head_count_kv": array(b"qwen2.attention.head_count_kv", 4, 2, struct.pack("<II", 2, 0))
    },
    "no context": {b"context_length": number(b"qwen2.context_length", 0)},
    "key length 2^31": {b"more": number(b"qwen2.attention.key_length", 1 << 31)},
    "a million experts": {b"more": number(b"qwen2.expert_count", 1_000_000)},
    "an epsilon of NaN": {b"more": single(EPSILON, float("nan"))},
    "an epsilon below 0": {b"more": single(EPSILON, -1.0)},
    "an epsilon of 0": {b"more": single(EPSILON, 0.0)},
    "an endless epsilon": {b"more": single(EPSILON, float("inf"))},
    "an epsilon of 0.2": {b"more": single(EPSILON, 0.2)},
    "an epsilon that is a text": {b"more": pair(EPSILON, 8, text(b"1e-5"))},
    "an epsilon that is a truth": {b"more": pair(EPSILON, 7, b"\x01")},
    "epsilons in a list": {b"more": array(EPSILON, 6, 1, struct.pack("<f", 1e-5))},
    "rope base 0": {b"more": single(b"qwen2.rope.freq_base", 0.0)},
    "rope base NaN": {b"more": single(b"qwen2.rope.freq_base", float("nan"))},
    "rope base below 0": {b"more": single(b"qwen2.rope.freq_base", -1e4)},
    "an endless rope base": {b"more": single(b"qwen2.rope.freq_base", float("inf"))},
    "rope factor 0": {b"more": single(b"qwen2.rope.scaling.factor", 0.0)},
    "rope factor NaN": {b"more": single(b"qwen2.rope.scaling.factor", float("nan"))},
    "old rope factor below 0": {b"more": single(b"qwen2.rope.scale_linear", -2.0)},
    "attention factor NaN": {b"more": single(b"qwen2.rope.scaling.attn_factor", float("nan"))},
    "yarn extrapolation NaN": {b"more": single(b"qwen2.rope.scaling.yarn_ext_factor", float("nan"))},
    "yarn beta 0": {b"more": single(b"qwen2.rope.scaling.yarn_beta_slow", 0.0)},
    "an unknown rope scaling": {b"more": pair(b"qwen2.rope.scaling.type", 8, text(b"spiral"))},
    "no rope scaling": {b"more": pair(b"qwen2.rope.scaling.type", 8, text(b""))},
    "some other number NaN": {b"more": single(b"qwen2.logit_scale", float("nan"))},
    "some other numbers endless": {b"more": array(b"qwen2.some", 6, 2, struct.pack("<ff", 1, -math.inf))},
    "temperature NaN": {b"more": single(b"general.sampling.temp", float("nan"))},
    "temperature 1e30": {b"more": single(b"general.sampling.temp", 1e30)},
    "temperature below 0": {b"more": single(b"general.sampling.temp", -0.1)},
    "temperature a text": {b"more": pair(b"general.sampling.temp", 8, text(b"hot"))},
    "temperature 11": {b"more": number(b"general.sampling.temp", 11)},
    "top_p 1.5": {b"more": single(b"general.sampling.top_p", 1.5)},
    "top_p NaN": {b"more": single(b"general.sampling.top_p", float("nan"))},
    "min_p endless": {b"more": single(b"general.sampling.min_p", float("inf"))},
    "top_k NaN": {b"more": single(b"general.sampling.top_k", float("nan"))},
    "top_k 2^32-1": {b"more": number(b"general.sampling.top_k", 0xFFFFFFFF)},
    "experts of which none is used": {b"more": number(b"qwen2.expert_count", 8)},
    "no experts, of which one is used": {b"more": number(b"qwen2.expert_used_count", 1)},
    "groups of no experts": {b"more": number(b"qwen2.expert_group_count", 1)},
    "KV heads that do not divide in one layer": {
        b"head_count_kv": array(b"qwen2.attention.head_count_kv", 4, 2, struct.pack("<II", 2, 3))
    },
    "heads for three of two layers": {
        b"head_count_kv": array(b"qwen2.attention.head_count_kv", 4, 3, struct.pack("<III", 2, 2, 2))
    },
    "values longer than keys": {b"more": number(b"qwen2.attention.value_length", 32)},
    "half a rotation": {b"more": number(b"qwen2.rope.dimension_count", 8)},
    "heads of an odd size": {
        b"head_count": number(b"qwen2.attention.head_count", 64),
        b"head_count_kv": b"",
    },
    "a rotation for no context": {b"more": number(b"qwen2.rope.scaling.original_context_length", 0)},
    "layers to predict with": {b"more": number(b"qwen2.nextn_predict_layers", 1)},
    "a pool": {b"more": number(b"qwen2.pooling_type", 1)},
    "both directions": {b"more": pair(b"qwen2.attention.causal", 7, b"\0")},
    "no tokenizer": {b"more": pair(b"tokenizer.ggml.model", 8, text(b"none"))},
    "BERT's tokenizer": {b"more": pair(b"tokenizer.ggml.model", 8, text(b"bert"))},
    "SentencePiece without bytes": {b"more": pair(b"tokenizer.ggml.model", 8, text(b"llama"))},
    "a token twice": {b"tokens": array(b"tokenizer.ggml.tokens", 8, 2, text(b"a") * 2)},
    "a token twice for C": {b"tokens": array(b"tokenizer.ggml.tokens", 8, 2, text(b"a") + text(b"a\0b"))},
    "a name for an empty token": {
        b"tokens": array(b"tokenizer.ggml.tokens", 8, 2, text(b"[EMPTY_1]") + text(b""))
    },
    "no vocabulary": {b"tokens": b""},
    "an empty vocabulary": {b"tokens": array(b"tokenizer.ggml.tokens", 8, 0)},
}


def read_model(
    tmp_path: Path, changes: dict[bytes, bytes], tensors: list[bytes], data: int = 4096
) -> tuple[Header, Path]:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf([part for part in {**MODEL, **changes}.values() if part], tensors, data=data))
    return read_header(path), path


def test_a_plain_model_is_supported(tmp_path: Path) -> None:
    check_supported(*read_model(tmp_path, {}, TENSORS))


@pytest.mark.parametrize(
    "part",
    [
        *(single(EPSILON, value) for value in (1e-12, 1e-6, 1e-5, 0.1)),
        *(single(b"qwen2.rope.freq_base", value) for value in (1.0, 1e4, 1e6, 4.58e10)),
        single(b"qwen2.rope.scaling.yarn_ext_factor", -1.0),
        single(b"qwen2.rope.scaling.factor", 40.0),
        pair(b"qwen2.rope.scaling.type", 8, text(b"yarn")),
        single(b"qwen2.logit_scale", 0.0),
        single(b"general.sampling.temp", 0.0),
        number(b"general.sampling.temp", 1),
        single(b"general.sampling.top_p", 1.0),
        pair(b"general.sampling.top_k", 5, struct.pack("<i", -1)),
    ],
)
def test_numbers_that_can_be_are_taken(tmp_path: Path, part: bytes) -> None:
    check_supported(*read_model(tmp_path, {b"more": part}, TENSORS))


def test_a_number_that_cannot_be_is_named_with_what_can(tmp_path: Path) -> None:
    header, path = read_model(tmp_path, IMPOSSIBLE["an epsilon below 0"], TENSORS)
    with pytest.raises(UnsupportedModel, match=r"rms_epsilon is -1; 1e-12 to 0\.1 is possible"):
        check_supported(header, path)


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_models_that_cannot_run_are_refused(tmp_path: Path, case: str) -> None:
    header, path = read_model(tmp_path, IMPOSSIBLE[case], TENSORS)
    with pytest.raises(UnsupportedModel) as caught:
        check_supported(header, path)
    assert str(path) in caught.value.message
    assert str(caught.value).isprintable()


def test_a_model_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="no tensors"):
        check_supported(*read_model(tmp_path, {}, []))


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        *((b"output_norm.weight", (256,), kind) for kind in (1, 8)),
        *((b"output.weight", (256, 2), kind) for kind in (9, 15, 24, 25, 26, 27, 28)),
    ],
)
def test_tensors_that_are_not_computed_with_are_refused(
    tmp_path: Path, name: bytes, shape: tuple[int, ...], kind: int
) -> None:
    made = tensor(name, shape, kind, offset=512)
    with pytest.raises(UnsupportedModel, match=r"'output(_norm)?\.weight' is"):
        check_supported(*read_model(tmp_path, {}, [*TENSORS, made], data=8192))


def test_empty_tokens_are_no_token_twice(tmp_path: Path) -> None:
    tokens = array(b"tokenizer.ggml.tokens", 8, 4, text(b"") * 3 + text(b"[EMPTY_9]"))
    check_supported(*read_model(tmp_path, {b"tokens": tokens}, TENSORS))


def test_a_sentencepiece_vocabulary_has_all_bytes(tmp_path: Path) -> None:
    kind = pair(b"tokenizer.ggml.model", 8, text(b"llama"))
    for names in ([b"<0x%02X>" % byte for byte in range(256)], [bytes([byte]) for byte in range(1, 256)]):
        tokens = array(b"tokenizer.ggml.tokens", 8, len(names), b"".join(map(text, names)))
        header, path = read_model(tmp_path, {b"tokens": tokens, b"more": kind}, TENSORS)
        if len(names) == 256:
            check_supported(header, path)
        else:
            with pytest.raises(UnsupportedModel, match="no token for some bytes"):
                check_supported(header, path)


def test_an_unknown_architecture_is_named_with_those_that_run_and_how_to_allow_it(tmp_path: Path) -> None:
    header, path = read_model(tmp_path, IMPOSSIBLE["gemma3"], TENSORS)
    with pytest.raises(UnsupportedModel, match=r"'gemma3'.*llama, qwen2, qwen3.*--allow-architecture gemma3"):
        check_supported(header, path)
    with pytest.raises(UnsupportedModel, match="'gemma3'"):
        check_supported(header, path, allow=["gemma"])


def test_an_architecture_that_is_allowed_is_checked_as_far_as_all_are(tmp_path: Path) -> None:
    own = {key: part.replace(b"qwen2.", b"gemma.") for key, part in MODEL.items()}
    own[b"general.architecture"] = pair(b"general.architecture", 8, text(b"gemma"))
    check_supported(*read_model(tmp_path, own, TENSORS), allow=["gemma"])
    pooled = {**own, b"more": number(b"gemma.pooling_type", 1)}
    check_supported(*read_model(tmp_path, pooled, TENSORS), allow=["gemma"])
    for wrong in (
        {b"block_count": number(b"gemma.block_count", 100_000)},
        {b"more": single(b"gemma.attention.layer_norm_rms_epsilon", -1.0)},
        {b"more": pair(b"tokenizer.ggml.model", 8, text(b"none"))},
        {b"tokens": array(b"tokenizer.ggml.tokens", 8, 2, text(b"a") * 2)},
    ):
        with pytest.raises(UnsupportedModel, match="does not describe"):
            check_supported(*read_model(tmp_path, {**own, **wrong}, TENSORS), allow=["gemma"])


VALID = gguf(list(MODEL.values()), TENSORS, data=512)
HEAD = len(VALID) - 512
VALUES = [0, 1, 4, 9, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]

flips = st.tuples(st.just("flip"), st.integers(0, HEAD - 1), st.integers(0, 255))
words = st.tuples(st.just("word"), st.integers(0, HEAD - 8), st.sampled_from(VALUES))
cuts = st.tuples(st.just("cut"), st.integers(0, len(VALID)), st.just(0))
drops = st.tuples(st.just("drop"), st.integers(0, HEAD - 1), st.integers(1, 64))


def mutated(changes: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(VALID)
    for kind, at, value in changes:
        if kind == "flip" and at < len(data):
            data[at] = value
        elif kind == "word" and at + 8 <= len(data):
            struct.pack_into("<Q", data, at, value)
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + value]
    return bytes(data)


@settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(flips | words | cuts | drops, min_size=1, max_size=4))
def test_whatever_is_changed_only_our_errors_come_out(
    tmp_path: Path, changes: list[tuple[str, int, int]]
) -> None:
    path = tmp_path / "mutated.gguf"
    path.write_bytes(mutated(changes))
    said = ""
    try:
        header = read_header(path)
        for name in dir(Header):
            getattr(header, name)
        check_supported(header, path)
    except (ModelFileError, UnsupportedModel) as error:
        said = str(error)
    assert not said or said.isprintable()


def test_too_many_strings_in_several_arrays(tmp_path: Path) -> None:
    path = tmp_path / "strings.gguf"
    path.write_bytes(gguf([array(b"%d" % n, 8, 1 << 18, bytes(8 << 18)) for n in range(5)]))
    with pytest.raises(ModelFileError, match="too many strings"):
        read_header(path)


@pytest.mark.parametrize("first", range(0, 10_000, 2500))
def test_ten_thousand_mutants(tmp_path: Path, nano: Path, first: int) -> None:
    """Each is read, or refused, at once, and with one line. Their numbers are their seeds."""
    mutants, path = Mutants(nano), tmp_path / "mutant.gguf"
    passed = 0
    for number in range(first, first + 2500):
        head, size, faults = mutants.head(number)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + size)
        started, said = time.process_time(), ""
        try:
            check_supported(read_header(path), path)
            passed += 1
        except (ModelFileError, UnsupportedModel) as error:
            said = str(error)
        assert not said or said.isprintable(), (number, faults)
        assert time.process_time() - started < 1, (number, faults)
    assert 700 < passed < 1500  # neither all of them stopped by the first check, nor none by any


def test_the_most_that_a_header_can_hold(tmp_path: Path) -> None:
    """All limits at once: in about a second, and in less than 200 MB, as far as Linux tells."""
    strings = (1 << 20) - (3 << 17)
    pairs = [
        *(number(b"%d" % n + b"k" * 4000, 1) for n in range(16_000)),
        array(b"merges", 8, strings, text(b"") * strings),
        array(b"tokenizer.ggml.tokens", 8, 3 << 17, b"".join(text(b"%032d" % n) for n in range(3 << 17))),
        *(pair(b"t%d" % n, 8, text("\U0001f600".encode() * (1 << 18))) for n in range(7)),
        *(array(b"v%d" % n, 10, 512, bytes([255]) * 8 * 512) for n in range(255)),
    ]
    tensors = [tensor(b"%063d" % n, (8, 1, 1, 1), offset=32 * n) for n in range(16_384)]
    path = tmp_path / "most.gguf"
    path.write_bytes(gguf(pairs, tensors, data=32 * 16_384))
    code = (
        "import sys, time; from pathlib import Path; from models.gguf import read_header;"
        "header = read_header(Path(sys.argv[1])); assert len(header.tensors) == 16384;"
        "print(time.process_time());"
        "status = open('/proc/self/status') if sys.platform == 'linux' else [];"
        "print(*[line for line in status if line.startswith('VmHWM')])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, cwd=ROOT)
    seconds, *memory = done.stdout.split()
    assert float(seconds) < 3  # measured: 0.8 with the start of Python; more is for slow machines
    assert not memory or int(memory[1]) * 1024 < 200_000_000
