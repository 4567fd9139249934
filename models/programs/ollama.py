"""What Ollama holds: manifests by name, which say by digest which blobs a model is made of.

    manifests/HOST/NAMESPACE/MODEL/TAG      JSON; in newer versions below manifests-v2, as links to blobs
    blobs/sha256-<64 hex>                   a GGUF file, a template, parameters ...

A manifest may come from anywhere. A digest is a digest or it is refused, so that no other file is ever meant
(CVE-2024-37032). Templates and parameters are not taken over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from models.programs import reading
from models.programs.found import Found, Surroundings

NAME: Final = "Ollama"

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST, _NAMESPACE = "registry.ollama.ai", "library"
"""Left out of names, as Ollama does."""
_TYPE: Final = "application/vnd.ollama.image."
_LIST: Final = "application/vnd.ollama.manifest.list.v2+json"
_RUNNERS: Final = ("", "ollama", "llamacpp")
"""Of a list of manifests, those for llama.cpp."""
_SYSTEM: Final = (
    "usr/share/ollama/.ollama/models",
    "var/lib/ollama/.ollama/models",
    "var/lib/ollama/models",
    "var/lib/ollama",
    "var/snap/ollama/common/models",
)
"""Where Linux distributions and the installer have the models of the system's service."""


class _Layer(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""
    size: int = 0


class _Manifest(msgspec.Struct, rename="camel"):
    media_type: str = ""
    layers: list[_Layer] | None = None
    manifests: list[_Manifest] | None = None
    runner: str = ""
    digest: str = ""


def find(here: Surroundings) -> Iterator[Found]:
    """The models of the user's Ollama and of the system's."""
    roots = [here.named("OLLAMA_MODELS"), here.home / ".ollama/models"]
    if not here.is_mac and not here.is_windows:
        roots += [here.root / folder for folder in _SYSTEM]
    for root in roots:
        if root is not None:
            yield from _in_root(root)


def _in_root(root: Path) -> Iterator[Found]:
    """By each name once; of several tags of one file, "latest" comes last."""
    names: dict[tuple[str, ...], Path] = {}
    for folder in ("manifests-v2", "manifests"):
        for path in reading.files_below(root / folder, reading.Budget(), depth=3):
            name = path.relative_to(root / folder).parts
            if len(name) == 4 and all(_PART.fullmatch(part) for part in name):
                names.setdefault(name, path)
    for name in sorted(names, key=lambda parts: (parts[-1] == "latest", parts)):
        if not names[name].is_symlink() or reading.inside(names[name], root / "blobs"):
            yield from _model(root, _called(*name), names[name])


def _called(host: str, namespace: str, model: str, tag: str) -> str:
    if host.lower() != _HOST:
        return f"{host}/{namespace}/{model}:{tag}"
    return f"{model}:{tag}" if namespace.lower() == _NAMESPACE else f"{namespace}/{model}:{tag}"


def _model(root: Path, called: str, path: Path) -> Iterator[Found]:
    """The model of one manifest; nothing for those that are no GGUF files, such as models in the cloud."""
    layers = _layers(root, reading.json_of(path, _Manifest))
    models = [layer for layer in layers if layer.media_type == f"{_TYPE}model"]
    if not models:
        return
    match = _DIGEST.fullmatch(models[0].digest)
    if match is None:
        return
    sha256 = match[1].lower()
    blob = root / "blobs" / f"sha256-{sha256}"
    size = reading.size_of(blob, follow=False)
    problem = ""
    if len(models) > 1:
        problem = f"Ollama keeps it in {len(models)} files that only itself puts together"
    elif any(layer.media_type == f"{_TYPE}adapter" for layer in layers):
        problem = "Ollama runs it with an adapter, which is not taken over"
    elif size is None:
        problem = "its file is missing"
    elif size != models[0].size:
        problem = f"its file has {size} bytes and not {models[0].size}"
    yield Found(program=NAME, called=called, paths=(blob,), size=size or 0, sha256=sha256, problem=problem)


def _layers(root: Path, manifest: _Manifest | None) -> list[_Layer]:
    """Of a manifest, or of the one for llama.cpp in a list of such."""
    if manifest is None or manifest.media_type != _LIST:
        return (manifest.layers if manifest else None) or []
    for one in manifest.manifests or []:
        if one.runner.lower() not in _RUNNERS or one.media_type == _LIST:
            continue
        match = _DIGEST.fullmatch(one.digest)
        if one.layers is None and match is not None:
            blob = root / "blobs" / f"sha256-{match[1].lower()}"
            stored = reading.json_of(blob, _Manifest) if reading.is_regular(blob, follow=False) else None
            one = stored or one
        if one.layers and one.media_type != _LIST:
            return one.layers
    return []
