"""`localai ask`: one question, one answer. The answer goes to standard output, thinking to standard error."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localai.chat.clean import clean, left_out, unseen
from localai.cli import options, output
from localai.cli.ask_report import JsonReport, Report, TextReport
from localai.errors import ContextOverflow, Interrupted, UsageError, WorkerDied, WorkerHung

if TYPE_CHECKING:
    from localai.chat.messages import ChatMessage
    from localai.engine.protocol import GenerationEvent, Overflow
    from localai.engine.settings import Limits, LoadOptions, Sampling
    from models.store import Resolved, Store

SEEDED = "nothing is drafted with --seed: drafts could change what is drawn"


@options.spread
def ask(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [PROMPT]",
            help="The question, in quotes; before it, a model's name or a GGUF file. "
            "Piped standard input is added below the question, or is the question.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
    system: Annotated[str, typer.Option(help="A system prompt.")] = "",
    *,
    drawing: options.Drawing,
    ending: options.Ending,
    loading: options.Loading,
    speculation: options.Speculation,
) -> None:
    """Ask one question and print the answer."""
    import asyncio

    from localai.engine.client import Engine
    from models.store import Store

    output.require_stdout()
    store = Store()
    piped = _piped_input()
    name, prompt = split_words(words or [], piped, lambda word: is_model(store, word))
    if hidden := unseen(piped):
        output.note(f"standard input: {left_out(hidden)}")
    model = options.choose_model(store, name)
    drafter = speculation.drafter(store, loading.allowed())
    question = Question(
        model=model,
        load=loading.options(
            model, drafter, speculate=speculation.speculate, draft=str(drafter.path) if drafter else None
        ),
        draft_name=options.stored_name(drafter) if drafter else "",
        sampling=drawing.sampling().completed_by(options.recommended_sampling(model)),
        limits=ending.limits(),
        prompt=prompt,
        system=clean(system) if system.strip() else "",
    )
    report = JsonReport(model.name) if json else TextReport(question.limits)
    asyncio.run(run(question, Engine(), report))


def is_model(store: Store, word: str) -> bool:
    """Whether `word` is a model rather than a question: an installed one's name, or the path of a file."""
    from models.local_path import is_path

    if is_path(word):
        return word.endswith(".gguf") or Path(word).expanduser().is_file()
    return any(word.lower() == manifest.name for manifest in store.manifests())


def split_words(words: list[str], piped: str, is_model: Callable[[str], bool]) -> tuple[str | None, str]:
    """(model, prompt) from the words of the command line and what was piped in; UsageError.

    A single word is the question, unless it is a model; the question is then what is piped.
    """
    if len(words) > 2:
        raise UsageError("too many words", 'Put the question in quotes: localai ask "What is 2 + 2?"')
    if len(words) == 1 and is_model(words[0]):
        words = [words[0], ""]
    model = words[0] if len(words) == 2 else None
    parts = [clean(part) for part in (words[-1] if words else "", piped)]
    prompt = "\n\n".join(part for part in parts if part.strip())
    if not prompt:
        raise UsageError("there is no question", 'Try: localai ask "What is 2 + 2?"')
    return model, prompt


def _piped_input() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8").strip("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text (byte {error.start})") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One question, the model that it is put to, and how."""

    model: Resolved
    load: LoadOptions
    sampling: Sampling
    limits: Limits
    prompt: str
    system: str = ""
    draft_name: str = ""
    """What the store calls the model that drafts."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of it, one line each."""
        if self.sampling.seed is not None and self.load.speculate and self.load.draft:
            return (SEEDED,)
        return ()


async def run(question: Question, engine: Any, report: Report) -> None:
    """Put `question` to `engine`, which is closed afterwards. Interrupted if Ctrl+C came first."""
    import asyncio
    import signal

    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows: Ctrl+C cancels the task by itself
        loop.add_signal_handler(signal.SIGINT, interrupted.set)
    work = asyncio.create_task(_ask(question, engine, report))
    watch = asyncio.create_task(interrupted.wait())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if interrupted.is_set() and not work.done():
            work.cancel()
            await asyncio.wait({work})
            raise Interrupted("interrupted")
        await work
    except BaseException:
        report.broken_off()
        raise
    finally:
        watch.cancel()
        await engine.close()


async def _ask(question: Question, engine: Any, report: Report) -> None:
    import msgspec

    from localai.chat.messages import ChatMessage
    from localai.engine import protocol
    from models import usage

    load = question.load
    if question.sampling.seed is not None:
        load = msgspec.structs.replace(load, draft=None)  # it would take memory, and draft nothing
    loaded = await engine.load(
        question.model.path,
        load,
        sha256=options.digest(question.model),
        name=options.stored_name(question.model),
        draft_name=question.draft_name,
    )
    report.confined(engine.sandbox)
    usage.mark(options.digest(question.model))
    loaded = msgspec.structs.replace(loaded, notes=(*loaded.notes, *question.notes))
    messages = [ChatMessage("user", question.prompt)]
    if question.system:
        messages.insert(0, ChatMessage("system", question.system))
    report.loaded(loaded, question.model, folded=bool(question.system) and not loaded.system_role)
    try:
        async with aclosing(engine.generate(messages, question.sampling, question.limits)) as events:
            async for event in events:
                if isinstance(event, protocol.Overflow):
                    raise too_long(event, messages)
                _tell(event, report)
    except (WorkerDied, WorkerHung) as error:
        raise type(error)(error.message, "Ask again to start a new one") from error


def _tell(event: GenerationEvent, report: Report) -> None:
    from localai.engine import protocol

    match event:
        case protocol.Thinking():
            report.thinking(event.text)
        case protocol.Answer():
            report.answer(event.text)
        case protocol.Looping():
            report.looping(event)
        case protocol.Done():
            report.done(event)


def too_long(overflow: Overflow, messages: Sequence[ChatMessage]) -> ContextOverflow:
    """The error for a question that does not fit: by how much, and what can be done."""
    from localai.chat.budget import Enlarge, describe

    todo = [
        f"give it more room with --context {offer.context}"
        if isinstance(offer, Enlarge)
        else describe(offer, messages)
        for offer in overflow.offers
    ]
    hint = ", or ".join(todo or ["shorten it, or give it more room with --context"])
    return ContextOverflow(
        f"the question has {overflow.prompt_tokens:,} tokens and the context holds {overflow.context:,}: "
        f"with room for a reply that is {overflow.over:,} too many",
        hint[0].upper() + hint[1:],
    )
