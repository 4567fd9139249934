"""`localai ask`: one question, one answer. The answer goes to standard output, thinking to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localai.chat.clean import clean
from localai.cli import options, output
from localai.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from localai.engine.client import LoadOptions
    from localai.engine.protocol import Done, Loaded, Sampling
    from models.store import Resolved, Store


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
    seed: options.Seed = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    max_tokens: options.MaxTokens = None,
    system: Annotated[str, typer.Option(help="A system prompt.")] = "",
    context: options.Context = None,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = None,
) -> None:
    """Ask one question and print the answer."""
    import asyncio

    from localai.engine.client import LoadOptions
    from localai.engine.protocol import Sampling
    from models.store import Store

    store = Store()
    name, prompt = split_words(words or [], _piped_input(), lambda word: is_model(store, word))
    model = options.choose_model(store, name)
    wanted = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    load = LoadOptions(context, threads, gpu_layers)
    job = _Ask(model, load, wanted, max_tokens, _JsonReport(model.name) if json else _TextReport())
    asyncio.run(job.run(prompt, system))


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


class _Ask:
    """One question put to one model."""

    def __init__(
        self,
        model: Resolved,
        load: LoadOptions,
        sampling: Sampling,
        max_tokens: int | None,
        report: _TextReport | _JsonReport,
    ) -> None:
        self._model, self._load, self._sampling = model, load, sampling
        self._max_tokens, self._report = max_tokens, report

    async def run(self, prompt: str, system: str) -> None:
        import asyncio
        import signal

        from localai.engine.client import Engine

        engine = Engine()
        interrupted = asyncio.Event()
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):  # Windows: Ctrl+C cancels the task by itself
            loop.add_signal_handler(signal.SIGINT, interrupted.set)
        work = asyncio.create_task(self._ask(engine, prompt, system))
        watch = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if interrupted.is_set() and not work.done():
                work.cancel()
                await asyncio.wait({work})
                raise Interrupted("interrupted")
            await work
        except BaseException:
            self._report.broken_off()
            raise
        finally:
            watch.cancel()
            await engine.close()

    async def _ask(self, engine: Any, prompt: str, system: str) -> None:
        from localai.chat.messages import ChatMessage
        from localai.engine import protocol

        loaded = await engine.load(self._model.path, self._load)
        messages = [ChatMessage("user", prompt)]
        if system.strip():
            messages.insert(0, ChatMessage("system", clean(system)))
        self._report.loaded(loaded, self._model, folded=bool(system.strip()) and not loaded.system_role)
        sampling = self._sampling.completed_by(options.recommended_sampling(self._model))
        async with aclosing(engine.generate(messages, sampling, self._max_tokens)) as events:
            async for event in events:
                match event:
                    case protocol.Thinking():
                        self._report.thinking(event.text)
                    case protocol.Answer():
                        self._report.answer(event.text)
                    case protocol.Done():
                        self._report.done(event)


class _TextReport:
    """For people: streams what it gets."""

    def __init__(self) -> None:
        self._dim = output.dims()
        self._thinking = self._answering = False

    def loaded(self, loaded: Loaded, model: Resolved, *, folded: bool) -> None:
        if folded:
            output.note("R1 has no system role: the system prompt stands at the start of your message")
        if (
            not loaded.reasoning
            and output.is_terminal()
            and model.manifest is not None
            and model.manifest.note
        ):
            output.note(f"{model.name}: {model.manifest.note}")

    def thinking(self, text: str) -> None:
        if not self._thinking and self._dim:
            output.aside(output.DIM)
        self._thinking = True
        output.aside(output.clean(text))

    def answer(self, text: str) -> None:
        if not self._answering:
            self._end_thinking()
        self._answering = True
        sys.stdout.write(output.clean(text))
        sys.stdout.flush()

    def _end_thinking(self) -> None:
        if self._thinking:
            output.aside((output.RESET if self._dim else "") + "\n\n")
            self._thinking = False

    def broken_off(self) -> None:
        """An error or Ctrl+C: what comes next begins on a line of its own, and is not dim."""
        self._end_thinking()
        if self._answering:
            sys.stdout.write("\n")

    def done(self, done: Done) -> None:
        self._end_thinking()
        if self._answering:
            sys.stdout.write("\n")
            sys.stdout.flush()
        if done.reason == "length":
            output.note("the answer was cut at --max-tokens")
        elif done.reason == "context":
            output.note("the answer was cut: the context is full. Give more room with --context")
        elif not self._answering:
            output.note("the model ended without an answer after its thinking")


class _JsonReport:
    """For programs: one object at the end, as docs/json.md describes it."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._thinking: list[str] = []
        self._answer: list[str] = []
        self._load_s = 0.0
        self._first_token_s: float | None = None

    def loaded(self, loaded: Loaded, model: Resolved, *, folded: bool) -> None:
        self._load_s = loaded.load_s
        if folded:
            output.note("R1 has no system role: the system prompt stands at the start of your message")

    def thinking(self, text: str) -> None:
        self._mark()
        self._thinking.append(text)

    def answer(self, text: str) -> None:
        self._mark()
        self._answer.append(text)

    def _mark(self) -> None:
        if self._first_token_s is None:
            self._first_token_s = seconds_since_start()

    def broken_off(self) -> None:
        """Half an answer is no JSON."""

    def done(self, done: Done) -> None:
        output.print_json(
            {
                "model": self._model,
                "thinking": "".join(self._thinking),
                "answer": "".join(self._answer),
                "finish_reason": done.reason,
                "usage": done.usage,
                "timings": {
                    "load_s": self._load_s,
                    "prompt_s": done.timings.prompt_s,
                    "first_token_s": self._first_token_s,
                    "generation_s": done.timings.generation_s,
                    "tokens_per_s": done.timings.tokens_per_s,
                },
            }
        )


def seconds_since_start() -> float:
    """Seconds since this process was started by the system, its imports included."""
    import psutil

    return time.time() - float(psutil.Process().create_time())
