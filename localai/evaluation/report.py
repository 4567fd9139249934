"""What an evaluation found: what `localai evaluate --json` prints, see docs/json.md."""

from __future__ import annotations

from typing import Any

import msgspec

from localai.confine.report import Sandbox
from localai.evaluation import statistics
from localai.evaluation.statistics import Divergence, Tokens
from models.header import Header


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one text. What is None unless there is a reference has it as its default."""

    model: str
    reference: str | None = None
    text: str
    text_sha256: str
    context: int
    """Tokens of each chunk."""
    chunks: int
    chunks_planned: int
    """More than `chunks` if it was stopped."""
    tokens: int
    """Those that count."""
    perplexity: float
    perplexity_stderr: float
    reference_perplexity: float | None = None
    reference_perplexity_stderr: float | None = None
    perplexity_ratio: float | None = None
    perplexity_ratio_stderr: float | None = None
    kl: Divergence | None = None
    top1_agreement: float | None = None
    """The share of tokens for which both think that the same one is the most likely."""
    top1_agreement_stderr: float | None = None
    dp_mean: float | None = None
    """By how much the right token became likelier; `dp_rms` is the root of the mean of its square."""
    dp_mean_stderr: float | None = None
    dp_rms: float | None = None
    dp_rms_stderr: float | None = None
    file_type: str
    size: int
    """Bytes of all tensors."""
    reference_file_type: str | None = None
    reference_size: int | None = None
    backend: str
    threads: int
    kv_type: str
    llama_cpp_commit: str
    chunks_measured: int
    """The others were measured before."""
    tokens_per_s: float | None
    """Tokens of the text; both models read each of them. None if nothing was measured."""
    seconds: float
    memory: int
    """Bytes that the worker occupied, at most; 0 if nothing was measured."""
    notes: list[str]
    sandbox: Sandbox


def comparison(name: str, header: Header, tokens: Tokens) -> dict[str, Any]:
    """The fields of a report that say how far the model is from the reference of that name."""
    own, ratio = statistics.perplexity(tokens.reference_nll), statistics.ratio(tokens)
    agreement = statistics.agreement(tokens.same)
    change, root = statistics.probability_change(tokens)
    return {
        "reference": name,
        "reference_perplexity": own.value,
        "reference_perplexity_stderr": own.stderr,
        "perplexity_ratio": ratio.value,
        "perplexity_ratio_stderr": ratio.stderr,
        "kl": statistics.divergence(tokens.kl),
        "top1_agreement": agreement.value,
        "top1_agreement_stderr": agreement.stderr,
        "dp_mean": change.value,
        "dp_mean_stderr": change.stderr,
        "dp_rms": root.value,
        "dp_rms_stderr": root.stderr,
        "reference_file_type": header.file_type,
        "reference_size": header.tensor_bytes,
    }
