"""What of an evaluation is kept with the model: its loss, if the figures say what others take them for.

That is what a file has lost against the weights that it was made of, on the text that comes with the program,
so that figures of several files can be compared.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Final

from localai.evaluation.report import Report
from localai.evaluation.run import Candidate
from localai.evaluation.texts import EVALUATION, built_in
from models.figures import Loss
from models.header import TensorInfo

LEAST_TOKENS: Final = 1_000
"""That count: with fewer the errors are too large to choose a file by."""
_NORM: Final = "output_norm.weight"
"""A tensor that no quantization changes."""
_LARGEST: Final = 1 << 20
"""Bytes of it that are looked at."""


def loss_of(report: Report, reference_sha256: str = "") -> Loss | None:
    """The loss in `report`; None if there is none, or it was measured in a way of its own.

    `reference_sha256`: of the file that it was compared with, where that is known.
    """
    usual = report.text_sha256 == _usual_text() and report.kv_type == "f16"
    return any_loss_of(report, reference_sha256) if usual and report.tokens >= LEAST_TOKENS else None


def any_loss_of(report: Report, reference_sha256: str = "") -> Loss | None:
    """The same of any text and however it was measured."""
    kl = report.kl
    if kl is None:
        return None
    return Loss(
        reference=report.reference_file_type or "",
        reference_sha256=reference_sha256,
        text=report.text,
        text_sha256=report.text_sha256,
        context=report.context,
        tokens=report.tokens,
        kl=kl.mean,
        kl_stderr=kl.mean_stderr,
        kl_p99=kl.p99,
        perplexity=report.perplexity,
        perplexity_stderr=report.perplexity_stderr,
        perplexity_ratio=report.perplexity_ratio or 0.0,
        perplexity_ratio_stderr=report.perplexity_ratio_stderr or 0.0,
        top1=report.top1_agreement or 0.0,
        top1_stderr=report.top1_agreement_stderr or 0.0,
    )


def is_made_of(model: Candidate, reference: Candidate) -> bool:
    """Whether `model` can be a quantization of `reference`: the same model, with fewer bits.

    Another model of the same kind, such as one that was trained further, is told by a tensor that is the same
    to the byte in all files that were made of the same weights.
    """
    one, other = model.header, reference.header
    same = (one.architecture, one.parameters) == (other.architecture, other.parameters)
    return same and one.tensor_bytes < other.tensor_bytes and _norm(model) == _norm(reference)


def _norm(one: Candidate) -> bytes:
    """The bytes of that tensor; none if it is not in the first file of a model in parts."""
    header = one.header
    found: TensorInfo | None = next((each for each in header.tensors if each.name == _NORM), None)
    if found is None or header.split_count > 1 or found.type_name != "F32":
        return b""
    with suppress(OSError), one.path.open("rb") as file:
        file.seek(header.data_offset + found.offset)
        return file.read(min(found.size, _LARGEST))
    return b""


@cache
def _usual_text() -> str:
    return built_in(EVALUATION).sha256
