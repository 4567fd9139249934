"""The model that another one is compared with: mostly what that was quantized from."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from localai.engine.drafting import same_tokens
from localai.engine.llama import Model
from localai.engine.loading import Plan
from localai.engine.settings import LoadOptions
from localai.errors import UsageError


class Reference(NamedTuple):
    """A second model in the same worker. It has no context of its own until something is evaluated."""

    model: Model
    notes: tuple[str, ...]
    """What the user should know of how it was loaded."""


def load(options: LoadOptions, compared: Model, resources: ExitStack) -> Reference | None:
    """The reference that `options` name for the model `compared`; None if they name none.

    UsageError if its tokens are others; other errors as `Plan`: `compared` is in memory already.
    """
    if options.reference is None:
        return None
    path = Path(options.reference)
    plan = Plan(path, msgspec.structs.replace(options, draft=None, reference=None))
    model = resources.enter_context(
        Model(path, plan.gpu_layers, lambda share: True, mmap=options.mmap, mlock=options.mlock)
    )
    if model.vocabulary != compared.vocabulary or not same_tokens(compared, model):
        raise UsageError(
            f"{path} has {_other(model, compared)} than the model that is to be compared with it",
            "A reference is what the model was quantized from, or another quantization of that",
        )
    return Reference(model, tuple(f"reference: {note}" for note in plan.notes))


def _other(model: Model, compared: Model) -> str:
    if model.vocabulary == compared.vocabulary:
        return "other tokens"
    many = "more" if model.vocabulary > compared.vocabulary else "fewer"
    return f"{many} tokens ({model.vocabulary:,}, not {compared.vocabulary:,})"
