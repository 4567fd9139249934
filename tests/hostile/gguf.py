"""Hostile GGUF files: r1-nano with one thing wrong, as in published bugs, and what is no file at all."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.mutants import File, Pair, Tensor, read, renamed, text, texts
from tests.hostile.case import Case, Make, Scene

ASK = "ask {input} hi --max-tokens 2"
IMPORT = "models import {input}"
SHOW = "models show {input}"
FIT = "models fit {input}"
QUANTIZE = "quantize {input} --type Q4_0 --allow-requantize --name made"
U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10

Change = Callable[[File], None]


def nano(*changes: Change, keep: slice | None = None, patch: Callable[[bytes], bytes] | None = None) -> Make:
    """r1-nano after `changes`; of its bytes only `keep`, or what `patch` makes of them."""

    def make(scene: Scene) -> Path:
        file = read(scene.nano)
        for change in changes:
            change(file)
        data = file.head() + file.body()
        data = data[keep] if keep else data
        return scene.write("hostile.gguf", patch(data) if patch else data)

    return make


def put(key: str, kind: int, value: bytes) -> Change:
    return lambda file: file.put(Pair(key.encode(), kind, value))


def number(key: str, value: int) -> Change:
    return put(key, U32, struct.pack("<I", value))


def single(key: str, value: float) -> Change:
    return put(key, F32, struct.pack("<f", value))


def word(key: str, value: bytes) -> Change:
    return put(key, STRING, text(value))


def array(key: str, kind: int, count: int, items: bytes = b"") -> Change:
    return put(key, ARRAY, struct.pack("<IQ", kind, count) + items)


def more(pair: Pair) -> Change:
    return lambda file: file.pairs.append(pair)


def first(**fields: object) -> Change:
    """The first tensor has other fields; nothing is laid out anew."""

    def change(file: File) -> None:
        file.lay_out()
        file.laid_out = False
        file.tensors[0] = file.tensors[0]._replace(**fields)

    return change


def counts(tensors: int | None, pairs: int | None) -> Change:
    def change(file: File) -> None:
        file.counts = (tensors, pairs)

    return change


def without(*keys: str) -> Change:
    def change(file: File) -> None:
        file.pairs = [pair for pair in file.pairs if pair.key.decode() not in keys]

    return change


def tensor_twice(file: File) -> None:
    file.tensors.append(file.tensors[0])


def overlapping(file: File) -> None:
    file.lay_out()
    file.laid_out = False
    file.tensors[1] = file.tensors[1]._replace(offset=0)


def without_layer(file: File) -> None:
    file.tensors = [one for one in file.tensors if not one.name.startswith(b"blk.3.")]


def no_tensors(file: File) -> None:
    file.tensors = []


def turned(file: File) -> None:
    """The embedding has its rows and columns the other way round."""
    at = next(at for at, one in enumerate(file.tensors) if one.name == b"token_embd.weight")
    file.tensors[at] = file.tensors[at]._replace(shape=file.tensors[at].shape[::-1])


def misnamed(file: File) -> None:
    file.tensors[0] = file.tensors[0]._replace(name=b"../../../etc/passwd")


def extra_tensor(file: File) -> None:
    file.tensors.append(Tensor(b"blk.9999.attn_q.weight", (32,), 0, 0))


def as_gemma(file: File) -> None:
    made = renamed(file, b"gemma")
    file.pairs, file.tensors = made.pairs, made.tensors


def tokens(count: int) -> Change:
    return put("tokenizer.ggml.tokens", ARRAY, texts([b"t%d" % n for n in range(count)]))


def named(name: str) -> Make:
    """The real model under a name that is a trap for terminals and shells."""
    return lambda scene: scene.write(name, scene.nano.read_bytes()[:5000])


def sparse(size: int, head: bytes = b"") -> Make:
    def make(scene: Scene) -> Path:
        path = scene.write("sparse.gguf", head)
        os.truncate(path, size)
        return path

    return make


def special(kind: str) -> Make:
    """No file, but something that has the name of one."""

    def make(scene: Scene) -> Path:
        path = scene.files / "model.gguf"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(path.name if kind == "loop" else kind)
        return path

    return make


def parts(*said: tuple[int, int, int], missing: Sequence[int] = (), second: bytes = b"") -> Make:
    """A model in parts; each says (its number, how many there are, how many tensors)."""

    def make(scene: Scene) -> Path:
        whole = read(scene.nano)
        half = len(whole.tensors) // 2
        paths = [scene.files / f"m-{at + 1:05}-of-{len(said):05}.gguf" for at in range(len(said))]
        for at, (claim, path) in enumerate(zip(said, paths, strict=True)):
            tensors = whole.tensors[:half] if at == 0 else whole.tensors[half:]
            part = File(list(whole.pairs), list(tensors), whole.data)
            part.put(Pair(b"split.no", 2, struct.pack("<H", claim[0])))
            part.put(Pair(b"split.count", 2, struct.pack("<H", claim[1])))
            part.put(Pair(b"split.tensors.count", I32, struct.pack("<i", claim[2] or len(whole.tensors))))
            if at not in missing:
                path.write_bytes(second if at and second else part.head() + part.body())
        return paths[0]

    return make


HUGE = (1 << 64) - 1
EPSILON = "qwen2.attention.layer_norm_rms_epsilon"
CASES = [
    Case("control", nano(), "ask {input} 2+3= --max-tokens 2", r"\S", code=0),
    Case("control of quantizing", nano(), QUANTIZE, "made", code=0),
    # the frame
    Case("empty", nano(keep=slice(0)), ASK, "empty"),
    Case("magic alone", nano(keep=slice(4)), IMPORT, "left"),
    Case("cut in a count", nano(keep=slice(20)), SHOW, "left"),
    Case("cut in the metadata", nano(keep=slice(700)), FIT, "left"),
    Case("cut in the vocabulary", nano(keep=slice(3000)), QUANTIZE, "left"),
    Case("cut in the tensors", nano(keep=slice(-1)), ASK, "truncated: 1 bytes|truncated: "),
    Case(
        "version 0", nano(patch=lambda data: data[:4] + bytes(4) + data[8:]), IMPORT, "version 0|big-endian"
    ),
    Case(
        "version 2^31",
        nano(patch=lambda data: data[:4] + struct.pack("<I", 1 << 31) + data[8:]),
        ASK,
        "big-endian",
    ),
    Case("big-endian", nano(patch=lambda data: data[:4] + b"\0\0\0\3" + data[8:]), SHOW, "big-endian"),
    Case("2^64-1 entries", nano(counts(None, HUGE)), ASK, "too many"),
    Case("2^64-1 tensors", nano(counts(HUGE, None)), QUANTIZE, "too many"),
    Case("an entry more than there is", nano(counts(None, 99)), IMPORT, "left"),
    Case("no tensors", nano(no_tensors), IMPORT, "no tensors"),
    # metadata
    Case("a string of 2^62", nano(put("x", STRING, struct.pack("<Q", 1 << 62))), ASK, "left"),
    Case("a string that wraps", nano(put("x", STRING, struct.pack("<Q", HUGE - 7))), IMPORT, "left"),
    Case("2^62 elements", nano(array("x", U32, 1 << 62)), QUANTIZE, "left"),
    Case("2^61 elements of 8 bytes", nano(array("x", U64, 1 << 61)), SHOW, "left"),
    Case("2^30 strings", nano(array("x", STRING, 1 << 30)), FIT, "strings|left|truncated"),
    Case("arrays in arrays", nano(put("x", ARRAY, struct.pack("<IQ", 9, 1) * 1000)), ASK, "unknown type 9"),
    Case("a type that is none", nano(put("x", 13, bytes(8))), IMPORT, "unknown type 13"),
    Case(
        "a key of 2^62",
        nano(patch=lambda d: d[:24] + struct.pack("<Q", 1 << 62) + d[32:]),
        ASK,
        "left|long|takes",
    ),
    Case("a key that is not UTF-8", nano(more(Pair(b"\xff\xfe", U32, bytes(4)))), IMPORT, "not UTF-8"),
    Case("no key", nano(more(Pair(b"", U32, bytes(4)))), SHOW, "empty or there twice"),
    Case("a key twice", nano(more(Pair(b"general.architecture", STRING, text(b"x")))), ASK, "there twice"),
    Case("alignment 0", nano(number("general.alignment", 0)), ASK, "alignment"),
    Case("alignment 33", nano(number("general.alignment", 33)), IMPORT, "alignment"),
    Case("alignment 2^31", nano(number("general.alignment", 1 << 31)), QUANTIZE, "alignment"),
    Case("alignment a text", nano(word("general.alignment", b"32")), SHOW, "alignment"),
    # tensors
    Case("9 dimensions", nano(first(shape=(1,) * 9)), ASK, "9 dimensions"),
    Case("a dimension of 0", nano(first(shape=(32, 0))), IMPORT, "impossible shape"),
    Case("a size that wraps to 0", nano(first(shape=(1 << 32, 1 << 32))), QUANTIZE, "impossible shape"),
    Case("bytes that overflow", nano(first(shape=((1 << 63) - 32,), kind=28)), ASK, "starts at|truncated"),
    Case("an unknown tensor type", nano(first(kind=99)), ASK, "unknown type 99"),
    Case("a removed tensor type", nano(first(kind=4)), QUANTIZE, "unknown type 4"),
    Case("an offset beyond the file", nano(first(offset=1 << 40)), ASK, "starts at"),
    Case("an offset that wraps", nano(first(offset=HUGE - 31)), IMPORT, "starts at"),
    Case("overlapping tensors", nano(overlapping), SHOW, "starts at"),
    Case("a tensor twice", nano(tensor_twice), ASK, "there twice"),
    Case("a tensor's name is a path", nano(misnamed), ASK, r"passwd|missing tensor|not load"),
    Case("a tensor of no layer", nano(extra_tensor), ASK, "wrong number of tensors|9999|not load"),
    Case("the tensors of a layer missing", nano(without_layer), ASK, "missing|blk.3|not load"),
    Case("the embedding turned", nano(turned), ASK, "token_embd|shape|type|whole"),
    # what the model claims to be
    Case("no architecture", nano(without("general.architecture")), ASK, "architecture"),
    Case("another architecture", nano(as_gemma), IMPORT, "gemma.*--allow-architecture"),
    Case(
        "escapes in the architecture",
        nano(word("general.architecture", b"\x1b]0;owned\x07\x1b[2J")),
        ASK,
        "architecture",
    ),
    Case("no layers", nano(number("qwen2.block_count", 0)), ASK, "block_count"),
    Case("100,000 layers", nano(number("qwen2.block_count", 100_000)), ASK, "block_count"),
    Case("one layer more than there is", nano(number("qwen2.block_count", 6)), ASK, "blk.5|missing|layer"),
    Case("layers a text", nano(word("qwen2.block_count", b"5")), FIT, "block_count"),
    Case("no heads", nano(number("qwen2.attention.head_count", 0)), ASK, "head_count"),
    Case("3 heads of 256", nano(number("qwen2.attention.head_count", 3)), QUANTIZE, "head_count|heads"),
    Case("2^32-1 wide", nano(number("qwen2.embedding_length", (1 << 32) - 1)), ASK, "embedding_length"),
    Case("half as wide", nano(number("qwen2.embedding_length", 128)), ASK, "wrong shape; expected 128"),
    Case("a context of 2^32-1", nano(number("qwen2.context_length", (1 << 32) - 1)), ASK, "context"),
    Case("a rope base of NaN", nano(single("qwen2.rope.freq_base", math.nan)), ASK, "freq_base"),
    Case("a rotation of 6", nano(number("qwen2.rope.dimension_count", 6)), ASK, "dimension_count|rota"),
    Case("an epsilon of -1", nano(single(EPSILON, -1)), IMPORT, "epsilon"),
    Case("a million experts", nano(number("qwen2.expert_count", 1_000_000)), ASK, "expert"),
    Case("temperature NaN", nano(single("general.sampling.temp", math.nan)), ASK, "sampling.temp"),
    # the vocabulary
    Case("fewer tokens than rows", nano(tokens(100)), ASK, "wrong shape; expected 256, 100"),
    Case("no tokens", nano(array("tokenizer.ggml.tokens", STRING, 0)), ASK, "vocabulary|token"),
    Case(
        "tokens that are numbers", nano(array("tokenizer.ggml.tokens", U32, 512, bytes(2048))), ASK, "token"
    ),
    Case(
        "one type for 512 tokens", nano(array("tokenizer.ggml.token_type", I32, 1, bytes(4))), ASK, "toktypes"
    ),
    Case(
        "types that are texts",
        nano(put("tokenizer.ggml.token_type", ARRAY, texts([b"x"] * 512))),
        ASK,
        "token_type",
    ),
    Case(
        "scores of NaN",
        nano(array("tokenizer.ggml.scores", F32, 512, struct.pack("<f", math.nan) * 512)),
        ASK,
        "cut at --max-tokens",
        code=0,
    ),
    Case(
        "merges of nothing",
        nano(put("tokenizer.ggml.merges", ARRAY, texts([b"", b" ", b"x"] * 9))),
        ASK,
        "cut",
        code=0,
    ),
    Case("merges a number", nano(number("tokenizer.ggml.merges", 7)), ASK, "merges"),
    Case("the end is token 2^31", nano(number("tokenizer.ggml.eos_token_id", 1 << 31)), ASK, "cut", code=0),
    Case("an unknown pre-tokenizer", nano(word("tokenizer.ggml.pre", b"../../x")), ASK, "pre"),
    Case("no tokenizer", nano(without("tokenizer.ggml.model")), ASK, "tokenizer"),
    # no files, and files of other kinds
    Case("not there", lambda scene: scene.files / "none.gguf", ASK, "no file|There is no"),
    Case("a folder", special("folder"), ASK, "is a folder.*localai quantize", code=2),
    Case("a pipe", special("pipe"), ASK, "not a file"),
    Case("a pipe to import", special("pipe"), IMPORT, "not a file"),
    Case("a pipe to quantize", special("pipe"), QUANTIZE, "pipe|not a file"),
    Case("/dev/zero", special("/dev/zero"), IMPORT, "not a file"),
    Case("a file of /proc", special("/proc/self/environ"), IMPORT, "is empty"),
    Case("endless memory", special("/proc/self/mem"), ASK, "is empty"),
    Case("a link to itself", special("loop"), ASK, "link|no file|cannot be read"),
    Case("1 TB of nothing", sparse(1 << 40), ASK, "not a GGUF"),
    Case(
        "1 TB of strings",
        sparse(
            1 << 40, b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 8, 1 << 33)
        ),
        IMPORT,
        "128 MiB|strings",
    ),
    Case("1 TB of weights", sparse(1 << 40, b""), QUANTIZE, "not a GGUF"),
    Case("a pickle", lambda s: s.write("x.gguf", b"\x80\x04cos\nsystem\n."), IMPORT, "pickle|not a GGUF"),
    Case("a program", lambda s: s.write("x.gguf", b"\x7fELF" + bytes(99)), ASK, "not a GGUF"),
    Case("an old GGML file", lambda s: s.write("x.gguf", b"tjgg" + bytes(99)), ASK, "GGML|not a GGUF"),
    Case("a web page", lambda s: s.write("x.gguf", "<!DOCTYPE html><html>" * 99), ASK, "page|not a GGUF"),
    Case("escapes in its name", named("a\x1b[2J\x1b]0;x\x07.gguf"), ASK, "truncated|left", names=".gguf"),
    Case("bidi in its name", named("a\u202efugg.exe.gguf"), ASK, "truncated|left", names=".gguf"),
    # several parts
    Case("parts, control", parts((0, 2, 0), (1, 2, 0)), "ask {input} 2+3= --max-tokens 2", r"\S", code=0),
    Case(
        "a part missing",
        parts((0, 2, 0), (1, 2, 0), missing=[1]),
        ASK,
        "is missing: the model is in 2 files",
        names="00002",
    ),
    Case("parts the other way round", parts((1, 2, 0), (0, 2, 0)), ASK, "part", names="m-0000"),
    Case("a count of 65,535 parts", parts((0, 65535, 0), (1, 65535, 0)), IMPORT, "part", names="m-0000"),
    Case("a count of tensors", parts((0, 2, 5), (1, 2, 5)), ASK, "5 tensors"),
    Case("the first part twice", parts((0, 2, 0), (0, 2, 0)), IMPORT, "part 2", names="00002"),
    Case(
        "a second part of another kind",
        parts((0, 2, 0), (1, 2, 0), second=b"PK\3\4"),
        ASK,
        "pickled checkpoint",
        names="00002",
    ),
]
