"""Options that several commands share, and how a model is chosen."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localai.errors import ModelNotFound, UsageError

if TYPE_CHECKING:
    from localai.engine.protocol import Sampling
    from models.store import Resolved, Store


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{value} is not a number to draw words with", "Leave the option out")
    return value


Context = Annotated[
    int | None,
    typer.Option(
        "--context",
        "-c",
        min=256,
        max=10_000_000,
        metavar="TOKENS",
        help="Room for the conversation. Default: what fits.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", "-t", min=1, max=512, help="CPU threads. Default: the physical cores."),
]
GpuLayers = Annotated[
    int | None,
    typer.Option(
        "--gpu-layers", min=-1, max=10_000, help="Layers on a GPU. Default: all, if one is compiled in."
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**32 - 2, help="The same seed gives the same answer.")
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        min=0.0,
        max=5.0,
        callback=_finite,
        help="0: always the likeliest word. Default: the model's.",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        min=0.0,
        max=1.0,
        callback=_finite,
        help="Draw from the likeliest words only. Default: the model's.",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, max=10_000_000, help="Stop after so many tokens."),
]


def path(text: str | Path) -> Path:
    """`text` as a path, with "~" as the user's home; an unknown "~user" stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's raises RuntimeError


Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text for people.")]


def choose_model(store: Store, text: str | None) -> Resolved:
    """The model that `text` names, or the default one; ModelNotFound if there is none."""
    if text is not None:
        return store.resolve(text)
    default = store.default()
    if default is not None:
        return store.resolve(default.name)
    for damaged in store.manifests():
        store.path(damaged)  # raises, saying what is wrong with it and what to do
    raise ModelNotFound("no model is installed", "Get the starter with: localai models pull smollm2:135m")


def recommended_sampling(model: Resolved) -> Sampling:
    """What the store knows about a model's sampling; what it does not know is left to the engine."""
    from localai.engine.protocol import Sampling

    if model.manifest is None or model.manifest.sampling is None:
        return Sampling()
    return Sampling(temperature=model.manifest.sampling.temperature, top_p=model.manifest.sampling.top_p)
