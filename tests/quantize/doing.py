"""Doing in this process what the quantize worker does, and looking at what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gguf import GGUFReader

from quantize import pipeline
from quantize.partials import Partial
from quantize.pipeline import OnEvent
from quantize.protocol import Job, Report, Target


def convert(
    source: Path,
    output: Path,
    file_type: str = "BF16",
    *,
    on_event: OnEvent = lambda event: None,
    **options,
) -> Report:
    """Make `output` of `source`; `options` are those of a job."""
    return convert_all(source, {output: file_type}, on_event=on_event, **options)


def convert_all(
    source: Path, outputs: dict[Path, str], *, on_event: OnEvent = lambda event: None, **options
) -> Report:
    """Make all `outputs`, whose types are given, in one run."""
    partials: Sequence[Partial] = [Partial(output, overwrite=False) for output in outputs]
    try:
        targets = tuple(
            Target(file_type, str(output), partial.fd)
            for partial, (output, file_type) in zip(partials, outputs.items(), strict=True)
        )
        report = pipeline.run(Job(str(source), targets=targets, **options), on_event)
        for partial in partials:
            partial.commit()
    finally:
        for partial in partials:
            partial.__exit__()
    return report


def types(path: Path) -> dict[str, str]:
    """The type of each tensor of a GGUF file."""
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    """The type and the bytes of each tensor of a GGUF file."""
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in GGUFReader(path).tensors}


def fields(path: Path) -> dict[str, object]:
    """The metadata of a GGUF file."""
    found = GGUFReader(path).fields
    return {key: field.contents() for key, field in found.items() if not key.startswith("GGUF.")}
