"""Options that several commands share, how they become settings, and how a model is chosen.

Options come in groups. A command takes a group as one parameter, and `spread` makes options of its fields:

    @options.spread
    def ask(*, loading: options.Loading, drawing: options.Drawing) -> None: ...
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
import os
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import msgspec
import typer

from localai.confine import choice
from localai.confine.choice import Mode
from localai.errors import LocalAIError, ModelNotFound, UsageError

if TYPE_CHECKING:
    from localai.engine.settings import Limits, LoadOptions, LogitBias, Sampling
    from models.header import Header
    from models.store import Resolved, Store


_Report = TypeVar("_Report", bound=msgspec.Struct)


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{value} is not a number to draw words with", "Leave the option out")
    return value


def _number(name: str, low: float, high: float, text: str) -> Any:
    return typer.Option(name, min=low, max=high, callback=_finite, help=text)


Context = Annotated[
    int | None,
    typer.Option(
        "--context",
        "-c",
        min=256,
        max=10_000_000,
        metavar="TOKENS",
        help="Room for the conversation. Default: what the model supports and memory allows.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", "-t", min=1, max=512, help="CPU threads. Default: the physical cores."),
]
GpuLayers = Annotated[
    int | None,
    typer.Option(
        "--gpu-layers",
        min=-1,
        max=10_000,
        help="Layers on a GPU. Default: all that fit, if one is compiled in.",
    ),
]
KvType = Annotated[
    Literal["f16", "q8_0", "q4_0"] | None,
    typer.Option(
        "--kv-type", help="How the context is kept: q8_0 takes half the memory of f16. Default: f16."
    ),
]
FlashAttention = Annotated[
    Literal["auto", "on", "off"],
    typer.Option("--flash-attention", help="Attention that keeps less in memory.", show_default=True),
]
Mmap = Annotated[bool, typer.Option("--mmap/--no-mmap", help="Map the file instead of reading it all first.")]
Mlock = Annotated[bool, typer.Option("--mlock", help="Keep the weights from being swapped out.")]
Batch = Annotated[
    int | None,
    typer.Option("--batch", min=16, max=16_384, help="Prompt tokens evaluated at once. Default: 512."),
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**32 - 2, help="The same seed gives the same answer.")
]
Temperature = Annotated[
    float | None, _number("--temperature", 0.0, 5.0, "0: always the likeliest word. Default: the model's.")
]
TopP = Annotated[
    float | None,
    _number("--top-p", 0.0, 1.0, "Draw from the likeliest words only. Default: the model's."),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", min=0, max=1 << 24, help="Draw from so many words at most. 0: from all."),
]
MinP = Annotated[
    float | None,
    _number("--min-p", 0.0, 1.0, "Draw no word that is so much less likely than the likeliest."),
]
RepeatPenalty = Annotated[
    float | None, _number("--repeat-penalty", 0.1, 10.0, "Above 1: words seen lately become less likely.")
]
FrequencyPenalty = Annotated[
    float | None, _number("--frequency-penalty", -10.0, 10.0, "The same, for each time a word was seen.")
]
PresencePenalty = Annotated[
    float | None, _number("--presence-penalty", -10.0, 10.0, "The same, once for each word seen.")
]
PenaltyLastN = Annotated[
    int | None,
    typer.Option(
        "--penalty-last-n", min=-1, max=10_000_000, help='How many tokens "lately" is. -1: the whole context.'
    ),
]
LogitBias_ = Annotated[
    list[str] | None,
    typer.Option(
        "--logit-bias",
        metavar="TOKEN=BIAS",
        help="Make a token likelier (5) or less likely (-5), or forbid it (-inf). TOKEN is its text or its "
        'number; "5" in quotes is a text. Can be given again.',
    ),
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, max=10_000_000, help="Stop after so many tokens.")
]
ThinkBudget = Annotated[
    int | None,
    typer.Option(
        "--think-budget", min=0, max=10_000_000, help="Close the thinking after so many tokens and answer."
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End the answer where this text begins. Can be given again."),
]
DraftModel = Annotated[
    str | None,
    typer.Option(
        "--draft-model",
        metavar="MODEL",
        help="A small model of the same tokenizer that drafts for the large one; the answer stays the same.",
    ),
]
Speculate = Annotated[
    bool,
    typer.Option(
        "--speculate/--no-speculate",
        help="Draft from the conversation's own text where that is quicker; the answer stays the same.",
    ),
]
AllowArchitecture = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-architecture",
        metavar="NAME",
        help="Also run a GGUF file of this architecture, which is not one of R1's. Can be given again.",
    ),
]


def _choose_sandbox(wanted: Mode | None) -> Mode | None:
    choice.choose(wanted)
    return wanted


Sandbox = Annotated[
    Mode | None,
    typer.Option(
        "--sandbox",
        callback=_choose_sandbox,
        help="require: load no model unless the engine is fully confined; prefer: as far as this system can; "
        "off. Default: LOCALAI_SANDBOX, else prefer.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text for people.")]


# ------------------------------------------------------------------------------------------------- groups


@dataclasses.dataclass(frozen=True)
class Loading:
    """How the model is loaded."""

    context: Context = None
    threads: Threads = None
    gpu_layers: GpuLayers = None
    kv_type: KvType = None
    flash_attention: FlashAttention = "auto"
    mmap: Mmap = True
    mlock: Mlock = False
    batch: Batch = None
    allow_architecture: AllowArchitecture = None
    sandbox: Sandbox = None

    def allowed(self, *models: Resolved | None) -> tuple[str, ...]:
        """The architectures that the user allows beside those of R1's models, now or when it was added.

        PolicyError where the organization forbids others.
        """
        from models.supported import check_may_allow

        stored = {model.manifest.allowed_architecture for model in models if model and model.manifest}
        found = tuple(dict.fromkeys([*(self.allow_architecture or ()), *sorted(stored - {""})]))
        check_may_allow(found)
        return found

    def options(
        self, *models: Resolved | None, speculate: bool = False, draft: str | None = None
    ) -> LoadOptions:
        """As the engine takes them for `models`; UsageError for what does not go together."""
        from localai.engine.settings import LoadOptions

        if self.flash_attention == "off" and self.kv_type in ("q8_0", "q4_0"):
            raise UsageError(
                f"--kv-type {self.kv_type} needs flash attention", "Leave out --flash-attention off"
            )
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["allow_architecture"], fields["sandbox"]
        allowed = self.allowed(*models)
        return LoadOptions(**fields, speculate=speculate, draft=draft, allow_architectures=allowed)


@dataclasses.dataclass(frozen=True)
class Speculation:
    """What drafts words for the model to check."""

    draft_model: DraftModel = None
    speculate: Speculate = True

    def drafter(self, store: Store, allow: Collection[str] = ()) -> Resolved | None:
        """The model that drafts, if one is named; raises from the error tree."""
        if self.draft_model is None:
            return None
        if not self.speculate:
            raise UsageError("--draft-model drafts, which --no-speculate forbids", "Leave one of them out")
        resolved = store.resolve(self.draft_model)
        header(resolved, allow)
        return resolved


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How words are drawn."""

    seed: Seed = None
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    min_p: MinP = None
    repeat_penalty: RepeatPenalty = None
    frequency_penalty: FrequencyPenalty = None
    presence_penalty: PresencePenalty = None
    penalty_last_n: PenaltyLastN = None
    logit_bias: LogitBias_ = None

    def sampling(self) -> Sampling:
        """As the engine takes it; UsageError for a bias that is none."""
        from localai.engine.settings import Sampling

        fields = dataclasses.asdict(self)
        biases = tuple(parse_bias(text) for text in fields.pop("logit_bias") or ())
        return Sampling(**fields, logit_bias=biases or None)


@dataclasses.dataclass(frozen=True)
class Ending:
    """What ends the answer before the model does."""

    max_tokens: MaxTokens = None
    think_budget: ThinkBudget = None
    stop: Stop = None

    def limits(self) -> Limits:
        """As the engine takes them; UsageError for a text to stop at that is empty."""
        from localai.engine.settings import Limits

        if any(not text for text in self.stop or ()):
            raise UsageError("--stop needs a text that is not empty")
        return Limits(self.max_tokens, self.think_budget, tuple(self.stop or ()))


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """`command` for typer: each parameter that is a group becomes an option for each field of the group.

    Groups are keyword-only parameters, behind all others.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _options_of(cast(type, groups[parameter.name]))
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))

    @functools.wraps(command)
    def spread_out(**given: Any) -> None:
        for name, group in groups.items():
            values = {field.name: given.pop(field.name) for field in dataclasses.fields(cast(Any, group))}
            given[name] = cast(Any, group)(**values)
        command(**given)

    for_typer = cast(Any, spread_out)
    for_typer.__signature__ = inspect.Signature(parameters)
    for_typer.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spread_out


def _options_of(group: type) -> list[inspect.Parameter]:
    """One parameter for each field; `--help` shows them together, under the first line of the docstring."""
    hints = typing.get_type_hints(group, include_extras=True)
    found = []
    for field in dataclasses.fields(group):
        value, option = typing.get_args(hints[field.name])
        option = copy.copy(option)
        option.rich_help_panel = (group.__doc__ or "").rstrip(".")
        kind = inspect.Parameter.KEYWORD_ONLY
        found.append(
            inspect.Parameter(field.name, kind, default=field.default, annotation=Annotated[value, option])
        )
    return found


def parse_bias(text: str) -> LogitBias:
    """A bias from "TOKEN=BIAS", where TOKEN is a number, a text, or a text in quotes; UsageError."""
    from localai.engine.settings import LogitBias

    token, equals, number = text.rpartition("=")
    try:
        bias = float(number)
    except ValueError:
        bias = math.nan
    if not equals or not token or math.isnan(bias) or bias == math.inf:
        raise UsageError(
            f"--logit-bias {text!r} is not TOKEN=BIAS", 'Try: --logit-bias " perhaps=-5", or =-inf to forbid'
        )
    if token.isascii() and token.isdecimal() and len(token) < 10:
        return LogitBias(int(token), bias)
    quoted = len(token) > 2 and token[0] == token[-1] == '"'
    return LogitBias(token[1:-1] if quoted else token, bias)


def path(text: str | Path) -> Path:
    """`text` as a path, with "~" as the user's home; an unknown "~user" stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's raises RuntimeError


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


def stored_name(model: Resolved) -> str:
    """The name of a model in the store, where its file lies under its digest; "" for any other file."""
    return "" if model.manifest is None else model.name


def stored_types(report: _Report, model: Resolved, reference: Resolved | None = None) -> _Report:
    """`report` with types as the store calls them: what a recipe made has a name that no header knows."""
    found = {"file_type": model, "reference_file_type": reference}
    told = {
        field: one.manifest.file_type
        for field, one in found.items()
        if one is not None and one.manifest and one.manifest.file_type
    }
    return msgspec.structs.replace(report, **told)


def header(model: Resolved, allow: Collection[str] = ()) -> Header:
    """The header of a model that runs here; errors call a model of the store by its name.

    `allow`: architectures beside those of R1's models.
    """
    try:
        return model.header(allow)
    except LocalAIError as error:
        if name := stored_name(model):
            path = str(model.path)
            raise type(error)(error.message.replace(path, name), error.hint.replace(path, name)) from error
        raise


def recommended_sampling(model: Resolved) -> Sampling:
    """What the store knows about a model's sampling; what it does not know is left to the engine."""
    from localai.engine.settings import Sampling

    if model.manifest is None or model.manifest.sampling is None:
        return Sampling()
    return Sampling(temperature=model.manifest.sampling.temperature, top_p=model.manifest.sampling.top_p)


def digest(model: Resolved) -> str:
    """The SHA-256 of a model's file where the store knows it, else ""."""
    return "" if model.manifest is None else model.manifest.sha256
