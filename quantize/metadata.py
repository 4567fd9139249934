"""The `general.*` keys: name, origin, licence and size of a model, and how it wants to be sampled.

The model card is untrusted, and nothing depends on it: what is too long, or not of a form that these keys can
hold, is left out, and a card that is malformed, huge or full of aliases is as good as none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from gguf import GGUFWriter, Metadata, size_label

from models.supported import SAMPLING, within
from quantize.checkpoint import Checkpoint
from quantize.source import Tensor

MAX_CARD = 1 << 20
"""Bytes of a README.md; pictures are beside it, not in it."""
MAX_FRONT_MATTER = 256 * 1024
"""Characters; with hundreds of benchmark results it comes near this."""
MAX_NODES = 20_000
"""Keys and values in a card: yaml takes half a second for as many."""
MAX_TEXT = 10_000
"""Characters of one value."""
MAX_ITEMS = 1000
"""Values in one list."""

_SAMPLING = {
    "top_k": ("top_k", SAMPLING["top_k"]),
    "top_p": ("top_p", SAMPLING["top_p"]),
    "min_p": ("min_p", SAMPLING["min_p"]),
    "temperature": ("temp", SAMPLING["temp"]),
    "repetition_penalty": ("penalty_repeat", (0.0, 10.0)),
}
"""Keys of generation_config.json, the writer's names for them, and what they may be, in the order of
llama.cpp's converter."""

_ABOUT = ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url")
_MORE = ("finetune", "basename", "size_label")
_TEXTS = {
    *(f"{prefix}{name}" for prefix in ("", "model_") for name in (*_ABOUT, *_MORE)),
    *("model_creator", "model_type", "license", "license_name", "license_link"),
}
_LISTS = {"tags", "pipeline_tag", "languages", "language"}
_ORIGINS = {"base_model", "base_models", "base_model_sources", "datasets", "dataset", "dataset_sources"}
"""Keys of a card that gguf's heuristics look at: texts, lists of texts (or one), and what the model was made
of: ids, or objects with the keys of `_ABOUT`. `license` may be a list, too."""

_MALFORMED = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What yaml raises for values that are not what their tags say, and gguf for what it does not expect."""


def add_general(writer: GGUFWriter, checkpoint: Checkpoint, planned: Iterable[Tensor], name: str) -> None:
    """Write what is known of the model. `name` "": from the model card, config.json or the folder's name."""
    weights = sum(math.prod(tensor.shape) for tensor in planned)
    writer.add_type("model")
    _add_sampling(writer, checkpoint.generation)
    metadata = _known(checkpoint, weights)
    metadata.name = name or metadata.name or checkpoint.folder.absolute().name
    metadata.size_label = metadata.size_label or size_label(weights, 0, 0, 0)
    metadata.set_gguf_meta_model(writer)


def _known(checkpoint: Checkpoint, weights: int) -> Metadata:
    """What gguf's heuristics find in README.md, config.json and the folder's name."""
    card = read_card(checkpoint.folder / "README.md")
    path = checkpoint.config.get("_name_or_path")
    config = {"_name_or_path": path} if isinstance(path, str) and len(path) <= MAX_TEXT else {}
    try:
        return Metadata.apply_metadata_heuristic(
            Metadata(), card, config, checkpoint.folder.absolute(), weights
        )
    except _MALFORMED:
        return Metadata()


def read_card(path: Path) -> dict[str, Any]:
    """What the model card at `path` says under the keys that gguf knows; None where that is of no use.

    Each other value is a text or a list of texts; of base models and data sets, a list of texts and of
    objects with texts. Nothing of it is longer than the limits at the top of this file.
    """
    try:
        text = _front_matter(path)
        if not text or len(text) > MAX_FRONT_MATTER:
            return {}
        loader = _Loader(text)
        root = loader.get_single_node()
    except (*_MALFORMED, OSError, RecursionError):
        return {}
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    known = _TEXTS | _LISTS | _ORIGINS
    return {
        key.value: _value(loader, key.value, node)
        for key, node in pairs
        if isinstance(key, yaml.ScalarNode) and key.value in known
    }


def _front_matter(path: Path) -> str:
    """The YAML of a model card, mended as gguf's `Metadata.load_model_card` does; "" if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        data = file.read(MAX_CARD + 1)
    lines = data.decode("utf-8").splitlines() if len(data) <= MAX_CARD else []
    if not lines or lines[0] != "---":
        return ""
    end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
    text = "\n".join(lines[1:end]) + "\n"
    return text.replace("- no\n", '- "no"\n').replace("\t", "  ")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads no further than `MAX_NODES`, and no aliases: ten lines of them can stand for gigabytes."""

    _nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("more than a model card needs")
        return super().compose_node(parent, index)


def _value(loader: _Loader, key: str, node: yaml.Node) -> Any:
    """What `node` holds, in a form that gguf's heuristics take under `key`; None if it has none."""
    is_list = isinstance(node, yaml.SequenceNode) and len(node.value) <= MAX_ITEMS
    if key in _ORIGINS and is_list:
        return [_origin(loader, one) for one in node.value]
    if (key in _LISTS or key == "license") and is_list:
        return [text for one in node.value if (text := _text(loader, one)) is not None]
    return _text(loader, node, only_str=key not in _TEXTS)


def _origin(loader: _Loader, node: yaml.Node) -> str | dict[str, str]:
    """A base model or data set; one of no use keeps its number, with nothing known of it."""
    if not isinstance(node, yaml.MappingNode):
        return _text(loader, node, only_str=True) or {}
    pairs = ((key.value, _text(loader, value)) for key, value in node.value)
    return {key: text for key, text in pairs if key in _ABOUT and text is not None}


def _text(loader: _Loader, node: yaml.Node, only_str: bool = False) -> str | None:
    """A scalar as text; None if it is null, too long, not to be encoded or, with `only_str`, a number."""
    if not isinstance(node, yaml.ScalarNode) or len(node.value) > MAX_TEXT:
        return None
    try:
        value = loader.construct_object(node)
        text = str(value)
        text.encode()
    except _MALFORMED:
        return None
    wanted = (str,) if only_str else (str, int, float, date)
    return text if isinstance(value, wanted) else None


def _add_sampling(writer: GGUFWriter, generation: dict[str, Any]) -> None:
    """What cannot be is left out: it only recommends, and the file would not be taken with it."""
    for key, (name, bounds) in _SAMPLING.items():
        value = generation.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and within(value, bounds):
            getattr(writer, f"add_sampling_{name}")(int(value) if key == "top_k" else float(value))
