"""Hostile GGUF files, made from a real one: the same for the same number, everywhere.

`Mutants(path)` takes a qwen2 model; `make(number)` gives one mutant of it, of a llama model made of it (with
either kind of tokenizer) or of a qwen3 model. A mutant has one to three faults in its structure: counts,
lengths, types, offsets, keys, values, tokens, tensors; or in its bytes: flips, cuts, splices, words. Most
keep the layout consistent otherwise, so that not the first check stops them all.
"""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gguf.constants import Keys

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_U32, _STRING, _ARRAY = 4, 8, 9
_BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)}
_BLOCKS |= {9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210)}
_BLOCKS |= {15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18)}
_BLOCKS |= {21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8)}
_BLOCKS |= {28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36)}
_BLOCKS |= {41: (128, 18), 42: (64, 18)}
_MOST_DATA = 64 << 20

NUMBERS = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 31, 32, 33, 63, 64, 65, 100, 127, 128, 255, 256, 257, 511, 512, 513),
    *(1000, 1024, 2047, 4096, 32767, 32768, 65535, 65536, 99_999, 1 << 20, 1 << 24, 1 << 27, (1 << 31) - 1),
    *(
        1 << 31,
        (1 << 32) - 2,
        (1 << 32) - 1,
        1 << 32,
        1 << 40,
        1 << 62,
        (1 << 63) - 1,
        1 << 63,
        (1 << 64) - 1,
    ),
)
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e-12,
    1e-38,
    1e-45,
    1e5,
    1e38,
    float("inf"),
    -float("inf"),
    float("nan"),
)
TEXTS = (
    *(b"", b"x", b"llama", b"qwen2", b"qwen3", b"gemma", b"bert", b"t5", b"clip", b"rwkv7", b"gpt2", b"none"),
    *(
        b"no_vocab",
        b"test",
        b"plamo2",
        b"hybriddna",
        b"whitespace",
        b"gemma4",
        b"yarn",
        b"linear",
        b"longrope",
    ),
    *(b"default", b"llama-bpe", b"qwen2-x", b"deepseek-r1-qwen", b"kimi-k2", b"\xff\xfe", b"\xc3", b"a\0b"),
    *(b"\x1b[2J", b"%s%n", b"../../x", b" ", b"x" * 70_000, "é".encode() * 100, b"{% for x in y %}"),
)
_NAMES = [
    value
    for group in vars(Keys).values()
    if isinstance(group, type)
    for value in vars(group).values()
    if isinstance(value, str) and "." in value
]


class Pair(NamedTuple):
    """A metadata entry: its key, type, and the bytes of its value."""

    key: bytes
    kind: int
    value: bytes


class Tensor(NamedTuple):
    """What the header says of a tensor."""

    name: bytes
    shape: tuple[int, ...]
    kind: int
    offset: int


class File:
    """The parts of a GGUF file, which may contradict each other."""

    def __init__(self, pairs: list[Pair], tensors: list[Tensor], data: bytes) -> None:
        self.pairs, self.tensors, self.data = pairs, tensors, data
        self.counts: tuple[int | None, int | None] = (None, None)
        self.laid_out = True
        """Whether offsets are made to fit when it is packed."""

    def head(self) -> bytes:
        """Everything before the data."""
        if self.laid_out:
            self.lay_out()
        tensors, pairs = self.counts
        head = b"GGUF" + struct.pack(
            "<IQQ",
            3,
            len(self.tensors) if tensors is None else tensors,
            len(self.pairs) if pairs is None else pairs,
        )
        head += b"".join(text(key) + struct.pack("<I", kind) + value for key, kind, value in self.pairs)
        for name, shape, kind, offset in self.tensors:
            lengths = struct.pack(f"<{len(shape)}Q", *shape)
            head += text(name) + struct.pack("<I", len(shape)) + lengths + struct.pack("<IQ", kind, offset)
        return head + bytes(-len(head) % 32)

    def lay_out(self) -> None:
        """Put the tensors one behind the other."""
        end = 0
        for number, tensor in enumerate(self.tensors):
            self.tensors[number] = tensor._replace(offset=end & ((1 << 64) - 1))
            end += -(-_size(tensor) // 32) * 32

    def size(self) -> int:
        """Bytes of data for all tensors; of what would be too much, only the beginning is there."""
        return min(_MOST_DATA, max((t.offset + _size(t) for t in self.tensors), default=0))

    def body(self) -> bytes:
        """The data."""
        needed = self.size()
        return (self.data * (needed // max(len(self.data), 1) + 1))[:needed]

    def find(self, key: bytes) -> int:
        """Where the entry of that key is."""
        return next(number for number, pair in enumerate(self.pairs) if pair.key == key)

    def put(self, pair: Pair) -> None:
        """Add an entry, or replace that of the same key."""
        self.pairs = [*(one for one in self.pairs if one.key != pair.key), pair]


def _size(tensor: Tensor) -> int:
    elements, size = _BLOCKS.get(tensor.kind, (1, 1))
    product = 1
    for length in tensor.shape:
        product *= length
    return product // elements * size


def text(value: bytes) -> bytes:
    """A string of the format."""
    return struct.pack("<Q", len(value)) + value


def texts(values: list[bytes]) -> bytes:
    """The value of an array of strings."""
    return struct.pack("<IQ", _STRING, len(values)) + b"".join(map(text, values))


def read(path: Path) -> File:
    """The parts of a well-formed file."""
    data, at = path.read_bytes(), 24
    tensor_count, pair_count = struct.unpack_from("<QQ", data, 8)

    def string() -> bytes:
        nonlocal at
        (length,) = struct.unpack_from("<Q", data, at)
        at += 8 + length
        return data[at - length : at]

    def skip(kind: int) -> None:
        nonlocal at
        if kind == _STRING:
            string()
        elif kind != _ARRAY:
            at += _SIZES[kind]
        else:
            item, count = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(count):
                skip(item)

    pairs, tensors = [], []
    for _ in range(pair_count):
        key = string()
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        start = at
        skip(kind)
        pairs.append(Pair(key, kind, data[start:at]))
    for _ in range(tensor_count):
        name = string()
        (dimensions,) = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{dimensions}Q", data, at + 4)
        at += 4 + 8 * dimensions
        tensors.append(Tensor(name, shape, *struct.unpack_from("<IQ", data, at)))
        at += 12
    return File(pairs, tensors, data[at + -at % 32 :])


def renamed(file: File, name: bytes) -> File:
    """The same model as one of another architecture."""
    made = copy.deepcopy(file)
    made.pairs = [
        Pair(key.replace(b"qwen2.", name + b".", 1), kind, text(name) if value == text(b"qwen2") else value)
        for key, kind, value in file.pairs
    ]
    return made


def _as_qwen3(file: File) -> File:
    made = renamed(file, b"qwen3")
    made.tensors = [one for one in made.tensors if not one.name.endswith(b".bias")]
    layers = {one.name.split(b".")[1] for one in made.tensors if one.name.startswith(b"blk.")}
    for layer in sorted(layers):
        for name in (b"q", b"k"):
            made.tensors.append(Tensor(b"blk.%b.attn_%b_norm.weight" % (layer, name), (64,), 0, 0))
    return made


def _as_sentencepiece(file: File) -> File:
    made = renamed(file, b"llama")
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256))]
    tokens += ["▁%d".encode() % number for number in range(512 - len(tokens))]
    made.put(Pair(b"tokenizer.ggml.tokens", _ARRAY, texts(tokens)))
    made.put(Pair(b"tokenizer.ggml.model", _STRING, text(b"llama")))
    made.put(Pair(b"tokenizer.ggml.scores", _ARRAY, struct.pack("<IQ512f", 6, 512, *[0.0] * 512)))
    kinds = [2, 3, 3, *[6] * 256, *[1] * (512 - 259)]
    made.put(Pair(b"tokenizer.ggml.token_type", _ARRAY, struct.pack("<IQ512i", 5, 512, *kinds)))
    return made


# ------------------------------------------------------------------------------------------------- faults


def _value(source: random.Random, kind: int) -> bytes:
    """Some value of that type that somebody might not expect."""
    if kind == _STRING:
        return text(source.choice(TEXTS))
    if kind in (6, 12):
        return struct.pack("<f" if kind == 6 else "<d", source.choice(FLOATS))
    if kind == _ARRAY:
        item = source.choice([4, 4, 5, 6, 7, 8, 0, 11, 13, 9])
        count = 1 if item == _ARRAY else source.choice([0, 1, 2, 4, 5, 5, 5, 6, 64, 511, 512, 513])
        return struct.pack("<IQ", item, count) + b"".join(_value(source, item) for _ in range(count))
    return (source.choice(NUMBERS) & ((1 << 8 * _SIZES.get(kind, 1)) - 1)).to_bytes(
        _SIZES.get(kind, 1), "little"
    )


def _pair(source: random.Random, file: File) -> int:
    return source.randrange(len(file.pairs))


def change_value(source: random.Random, file: File) -> None:
    at = _pair(source, file)
    key, kind, _ = file.pairs[at]
    file.pairs[at] = Pair(key, kind, _value(source, kind))


def change_own_value(source: random.Random, file: File) -> None:
    """Of the model's dimensions."""
    own = [at for at, pair in enumerate(file.pairs) if not pair.key.startswith((b"general.", b"tokenizer."))]
    at = source.choice(own)
    key, kind, _ = file.pairs[at]
    file.pairs[at] = Pair(key, kind, _value(source, kind))


def one_for_each_layer(source: random.Random, file: File) -> None:
    own = [at for at, pair in enumerate(file.pairs) if pair.kind == _U32 and not pair.key.startswith(b"gen")]
    at, count = source.choice(own), source.choice([1, 4, 5, 5, 5, 6])
    values = [source.choice([0, 1, 2, 4, 8, 64, 768, 1 << 20]) for _ in range(count)]
    value = struct.pack(f"<IQ{count}I", _U32, count, *values)
    file.pairs[at] = Pair(file.pairs[at].key, _ARRAY, value)


def change_type(source: random.Random, file: File) -> None:
    at, kind = _pair(source, file), source.randrange(15)
    file.pairs[at] = Pair(file.pairs[at].key, kind, _value(source, kind))


def change_only_type(source: random.Random, file: File) -> None:
    at = _pair(source, file)
    file.pairs[at] = file.pairs[at]._replace(kind=source.choice([*range(14), 0xFFFFFFFF]))


def change_length(source: random.Random, file: File) -> None:
    """Of a string or an array, without its content."""
    long = [at for at, pair in enumerate(file.pairs) if pair.kind in (_STRING, _ARRAY)]
    at = source.choice(long)
    key, kind, value = file.pairs[at]
    start = 0 if kind == _STRING else 4
    length = struct.pack("<Q", source.choice(NUMBERS))
    file.pairs[at] = Pair(key, kind, value[:start] + length + value[start + 8 :])


def drop_entry(source: random.Random, file: File) -> None:
    del file.pairs[_pair(source, file)]


def repeat_entry(source: random.Random, file: File) -> None:
    file.pairs.append(file.pairs[_pair(source, file)])


def move_entry(source: random.Random, file: File) -> None:
    file.pairs.insert(_pair(source, file), file.pairs.pop(_pair(source, file)))


def rename_entry(source: random.Random, file: File) -> None:
    at = _pair(source, file)
    name = source.choice([*TEXTS, source.choice(_NAMES).encode()])
    file.pairs[at] = file.pairs[at]._replace(key=name)


def add_known_entry(source: random.Random, file: File) -> None:
    """Something that llama.cpp reads of some model."""
    name = file.pairs[file.find(b"general.architecture")].value[8:].decode("utf-8", "replace")
    key = source.choice(_NAMES).replace("{arch}", name).encode()
    kind = source.choice([4, 4, 4, 4, 6, 6, 7, 8, 9, 9, 5, 10])
    file.put(Pair(key, kind, _value(source, kind)))


def change_tokens(source: random.Random, file: File) -> None:
    at = file.find(b"tokenizer.ggml.tokens")
    value, tokens, start = file.pairs[at].value, [], 12
    while start < len(value):
        (length,) = struct.unpack_from("<Q", value, start)
        tokens.append(value[start + 8 : start + 8 + length])
        start += 8 + length
    for _ in range(source.choice([1, 1, 2, 50])):
        place = source.randrange(len(tokens))
        other = source.choice(tokens)
        match source.randrange(6):
            case 0:
                tokens[place] = other
            case 1:
                tokens[place] = source.choice(TEXTS)
            case 2:
                tokens[place] = source.randbytes(source.randrange(12))
            case 3:
                tokens[place], tokens[tokens.index(other)] = other, tokens[place]
            case 4:
                del tokens[place]
            case 5:
                tokens.insert(place, b"[EMPTY_%d]" % place)
    file.pairs[at] = Pair(b"tokenizer.ggml.tokens", _ARRAY, texts(tokens))


def change_other_tokens(source: random.Random, file: File) -> None:
    """Their types, scores or merges: some items, or how many there are."""
    names = [b"tokenizer.ggml.token_type", b"tokenizer.ggml.scores", b"tokenizer.ggml.merges"]
    at = source.choice([at for at, pair in enumerate(file.pairs) if pair.key in names])
    key, kind, value = file.pairs[at]
    item, count = struct.unpack_from("<IQ", value)
    count = min(count, 512)
    if item == _STRING:
        merges = [source.choice(TEXTS) for _ in range(source.choice([0, 1, 50]))]
        file.pairs[at] = Pair(key, kind, texts(merges))
        return
    numbers = [
        _value(source, item) if source.random() < 0.1 else value[12 + 4 * n :][:4] for n in range(count)
    ]
    numbers = numbers[: source.choice([count, count, count - 1, 0])]
    file.pairs[at] = Pair(key, kind, struct.pack("<IQ", item, len(numbers)) + b"".join(numbers))


def _tensor(source: random.Random, file: File) -> int:
    return source.randrange(len(file.tensors))


def change_tensor_type(source: random.Random, file: File) -> None:
    at = _tensor(source, file)
    file.tensors[at] = file.tensors[at]._replace(
        kind=source.choice([*_BLOCKS, 4, 5, 31, 36, 43, 99, 1 << 31])
    )


def change_all_types(source: random.Random, file: File) -> None:
    """Of all matrices: to something that may or may not be computed with."""
    kind = source.choice(list(_BLOCKS))
    file.tensors = [
        one._replace(kind=kind) if len(one.shape) > 1 and one.shape[0] % _BLOCKS[kind][0] == 0 else one
        for one in file.tensors
    ]


def change_shape(source: random.Random, file: File) -> None:
    at = _tensor(source, file)
    shape = list(file.tensors[at].shape)
    match source.randrange(5):
        case 0:
            shape[source.randrange(len(shape))] = source.choice(NUMBERS)
        case 1:
            shape.append(source.choice([0, 1, 2, 1 << 32]))
        case 2:
            shape.reverse()
        case 3:
            shape = shape[:-1]
        case 4:
            shape = [source.choice(NUMBERS) for _ in range(source.choice([1, 2, 3, 4, 5, 9]))]
    file.tensors[at] = file.tensors[at]._replace(shape=tuple(shape))


def change_offset(source: random.Random, file: File) -> None:
    file.lay_out()
    file.laid_out = False
    at = _tensor(source, file)
    offset = source.choice([*NUMBERS, file.tensors[at].offset + 32, file.tensors[at].offset ^ 1])
    file.tensors[at] = file.tensors[at]._replace(offset=offset & ((1 << 64) - 1))


def change_tensor_name(source: random.Random, file: File) -> None:
    at, other = _tensor(source, file), file.tensors[_tensor(source, file)].name
    name = source.choice(
        [*TEXTS, other, other.replace(b"weight", b"bias"), b"blk.99.attn_q.weight", b"n" * 64]
    )
    file.tensors[at] = file.tensors[at]._replace(name=name)


def drop_tensor(source: random.Random, file: File) -> None:
    del file.tensors[_tensor(source, file)]


def add_tensor(source: random.Random, file: File) -> None:
    """One more, or one that some models have."""
    names = [b"rope_freqs.weight", b"output.bias", b"output.scale", b"token_embd.bias", b"blk.0.attn_q.scale"]
    names += [b"blk.0.attn_output.bias", b"blk.0.ffn_up.bias", b"blk.0.ffn_gate_inp.weight", b"cls.weight"]
    names += [b"rope_factors_long.weight", b"blk.0.attn_q_norm.weight", b"blk.0.attn_qkv.weight", b"x"]
    shape = source.choice([(1,), (32,), (64,), (256,), (256, 256), (768,), (512,), (256, 512), (256, 768, 2)])
    kind = source.choice([0, 0, 0, 1, 8, 26])
    file.tensors.insert(_tensor(source, file), Tensor(source.choice(names), shape, kind, 0))


def move_tensor(source: random.Random, file: File) -> None:
    file.tensors.insert(_tensor(source, file), file.tensors.pop(_tensor(source, file)))


def change_counts(source: random.Random, file: File) -> None:
    wrong = source.choice([*NUMBERS, len(file.tensors) + 1, len(file.pairs) - 1])
    file.counts = source.choice([(wrong, None), (None, wrong), (wrong, wrong)])


FAULTS: dict[Callable[[random.Random, File], None], int] = {
    change_value: 10,
    change_own_value: 20,
    one_for_each_layer: 8,
    change_type: 5,
    change_only_type: 4,
    change_length: 4,
    drop_entry: 3,
    repeat_entry: 1,
    move_entry: 1,
    rename_entry: 2,
    add_known_entry: 24,
    change_tokens: 8,
    change_other_tokens: 8,
    change_tensor_type: 6,
    change_all_types: 5,
    change_shape: 4,
    change_offset: 2,
    change_tensor_name: 3,
    drop_tensor: 2,
    add_tensor: 5,
    move_tensor: 2,
    change_counts: 2,
}
"""How often each is chosen."""


def damaged(source: random.Random, head: bytes) -> bytes:
    """The bytes of a header with a flip, a cut, a splice or a word in them."""
    data = bytearray(head)
    at = source.randrange(len(data))
    match source.randrange(5):
        case 0:
            for _ in range(source.choice([1, 1, 2, 8])):
                data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        case 1:
            del data[at:]
        case 2:
            del data[at : at + source.randrange(1, 64)]
        case 3:
            start = source.randrange(len(data))
            data[at:at] = data[start : start + source.randrange(1, 256)]
        case 4:
            place = min(at, len(data) - 8)
            struct.pack_into("<Q", data, place, source.choice(NUMBERS))
    return bytes(data)


class Mutant(NamedTuple):
    """A hostile file: its header, what follows, and what was done to it."""

    head: bytes
    body: bytes
    faults: str


class Mutants:
    """Makes them from the qwen2 model at `path`."""

    def __init__(self, path: Path) -> None:
        model = read(path)
        self.bases = {
            "qwen2": model,
            "llama": renamed(model, b"llama"),
            "sentencepiece": _as_sentencepiece(model),
            "qwen3": _as_qwen3(model),
        }

    def make(self, number: int) -> Mutant:
        """The mutant of that number."""
        file, head, faults = self._made(number)
        return Mutant(head, file.body(), faults)

    def head(self, number: int) -> tuple[bytes, int, str]:
        """Its header, the size of what follows, and what was done to it; quicker than `make`."""
        file, head, faults = self._made(number)
        return head, file.size(), faults

    def _made(self, number: int) -> tuple[File, bytes, str]:
        source = random.Random(number)
        name = source.choice(["qwen2", "qwen2", "llama", "sentencepiece", "qwen3"])
        base = self.bases[name]
        file = File(list(base.pairs), list(base.tensors), base.data)
        done = [name]
        for _ in range(source.choice([1, 1, 1, 1, 2, 3])):
            fault = source.choices(list(FAULTS), list(FAULTS.values()))[0]
            try:
                fault(source, file)
            except (StopIteration, IndexError, ValueError, struct.error):
                continue  # an earlier one took away what this one changes
            done.append(fault.__name__)
        head = file.head()
        if source.random() < 0.12:
            head = damaged(source, head)
            done.append("damaged")
        return file, head, " ".join(done)
