"""A loaded model and all that can be asked of it; the worker's requests, one method each.

`Served` knows nothing of pipes: it takes requests and yields events.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from localai.chat import budget
from localai.chat.messages import ChatMessage
from localai.engine import loading, protocol, reference
from localai.engine.cache import KVCache, Parked
from localai.engine.context import AbortFlag, Context, ContextSettings
from localai.engine.drafting import DraftModel, ModelDrafter
from localai.engine.generate import Generation, Voice
from localai.engine.llama import Model
from localai.engine.prompts import Prompter
from localai.engine.reply import Reply
from localai.engine.scheduler import PromptPieces, Scheduler
from localai.engine.settings import LoadOptions
from localai.engine.speculation import Drafter, DraftPolicy, NgramDrafter
from localai.engine.threads import ThreadGovernor
from localai.errors import EngineError, LocalAIError

if TYPE_CHECKING:
    from localai.engine.sensitivity import Sensitivity

STATE_PART = 1 << 20
"""Bytes of a saved state in one frame."""
QUICKLY_READ = 1_000_000
"""Bytes of text whose tokens are found in about a second."""
SAMPLE = 10_000
"""Characters from which the number of tokens of a longer text is guessed."""
CAREFUL_ABOVE = 2_000_000_000
"""Parameters from which on the first piece of a prompt is small, until its speed is known."""


class _State(msgspec.Struct, frozen=True):
    """What precedes the keys and values in a saved state."""

    fingerprint: str
    tokens: list[int]
    on_grid: int
    size: int
    """Bytes of the keys and values that follow."""
    checksum: int
    """Their Adler-32 checksum: against accidents, not against attacks."""
    replies: dict[str, list[int]]
    """The tokens that the replies in it were drawn as."""


_states = msgspec.msgpack.Decoder(_State)
_LENGTH_BYTES = 4


class Served:
    """The model at `path`, ready to answer. Raises from the error tree.

    What it opens is closed with `resources`; `abort` stops its computations. `accepted_templates` as in
    `protocol.Load`.
    """

    def __init__(
        self,
        path: Path,
        options: LoadOptions,
        abort: AbortFlag,
        resources: ExitStack,
        on_progress: Callable[[float], bool],
        accepted_templates: Sequence[str] = (),
    ) -> None:
        started = time.perf_counter()
        self._plan = plan = loading.Plan(path, options)
        if options.converse:
            loading.require_format(plan.header, path, accepted_templates)
        self._options, self._abort, self._resources = options, abort, resources
        self._loss: Sensitivity | None = None
        self._model = resources.enter_context(
            Model(
                path,
                plan.gpu_layers,
                on_progress,
                mmap=options.mmap and not options.writable,
                mlock=options.mlock,
                as_stored=options.writable,
            )
        )
        self._settings = settings = ContextSettings(
            size=plan.context,
            threads=plan.threads,
            batch=plan.batch,
            sequences=options.parallel,
            kv_type=plan.kv_type,
            flash_attention=options.flash_attention,
        )
        self._context = resources.enter_context(Context(self._model, settings, abort))
        self._voice = Voice(self._model, loading.prompt_format(self._model, plan, accepted_templates))
        self._drafter = DraftModel.load(options, self._model, settings, abort, resources)
        self._reference = reference.load(options, self._model, resources)
        self._policy = DraftPolicy()
        pinned = options.threads is not None or not plan.on_cpu
        self.governor = ThreadGovernor(plan.threads, self._set_threads, fixed=pinned)
        self._pinned = pinned
        self.scheduler = Scheduler(
            self._context,
            KVCache(self._context, options.parallel, plan.parking_limit),
            PromptPieces(plan.batch, plan.largest_matrix, careful=plan.header.parameters > CAREFUL_ABOVE),
            self.governor,
            abort,
        )
        self._sampling = loading.recommended(plan.header, self._voice.prompter.form)
        self._fingerprint = ""
        self._incoming = bytearray()
        self._conversations: dict[int, protocol.Generate] = {}
        self._load_s = time.perf_counter() - started

    def _set_threads(self, count: int) -> None:
        self._context.set_threads(count)
        if self._drafter is not None:
            self._drafter.set_threads(count)

    @property
    def _prompter(self) -> Prompter:
        return self._voice.prompter

    def describe(self, sha256: str) -> protocol.Loaded:
        """What the model is, and how it was loaded."""
        plan, form = self._plan, self._prompter.form
        self._fingerprint = plan.fingerprint(sha256)
        return protocol.Loaded(
            description=self._model.description,
            architecture=plan.header.architecture,
            name=plan.header.name,
            file_type=plan.header.file_type,
            parameters=plan.header.parameters,
            size=self._model.size,
            context=self._context.size,
            context_trained=plan.header.context_trained,
            threads=plan.threads,
            gpu_layers=plan.gpu_layers,
            backend=plan.backend,
            prompt_format=form.name,
            reasoning=form.reasoning,
            system_role=form.system_role,
            sampling=self._sampling,
            load_s=self._load_s,
            vocabulary=self._model.vocabulary,
            parallel=self._options.parallel,
            kv_type=plan.kv_type,
            kv_bytes_per_token=plan.kv_bytes_per_token,
            weights_read=plan.weights_read(),
            fingerprint=self._fingerprint,
            notes=(
                *plan.notes,
                *(note for other in (self._drafter, self._reference) if other for note in other.notes),
            ),
        )

    # ------------------------------------------------------------------------------------------- requests

    def serve(self, request: protocol.Request) -> Iterator[protocol.Event]:
        """Answer at once what can be, and begin the rest."""
        match request:
            case protocol.Generate():
                yield from self._generate(request)
            case protocol.Continue():
                yield from self._continue(request)
            case protocol.Prefill():
                if self._estimate(request.messages) is None:
                    self.scheduler.read_ahead(self._prompter.opening(request.messages))
            case protocol.Count():
                yield self._count(request)
            case protocol.Save():
                yield from self._save(request)
            case protocol.Restore():
                yield from self._restore(request)
            case protocol.Status():
                yield self._status(request)
            case protocol.Write():
                yield from self._write(request)
            case protocol.Observe():
                from localai.engine import activations  # here, because chats need neither of these

                yield from activations.observe(
                    self._model, request, self._plan.threads, self._abort, pinned=self._pinned
                )
            case protocol.Evaluate():
                from localai.engine import evaluation

                models = [self._model, *([self._reference.model] if self._reference is not None else [])]
                yield from evaluation.evaluate(
                    models, request, self._settings, self._abort, pinned=self._pinned
                )
            case protocol.Baseline() | protocol.Perturb():
                yield from self._sensitivity(request)
            case protocol.AnswerNow():
                if generation := self.scheduler.find(request.id):
                    generation.answer_now()
            case protocol.Cancel():
                if generation := self.scheduler.find(request.id):
                    generation.cancel()
                yield from self._reap()

    def _write(self, request: protocol.Write) -> Iterator[protocol.Event]:
        from localai.engine import writing

        if self.scheduler.busy:
            raise EngineError("the model is answering already, and can write a text only by itself")
        self.scheduler.read_ahead([])
        sampling = request.sampling.completed_by(self._sampling)
        sequences = self.scheduler.cache.sequences
        try:
            yield from writing.write(
                self._voice,
                self._context,
                sequences,
                request,
                sampling,
                self._plan.threads,
                pinned=self._pinned,
            )
        finally:
            self._context.set_threads(self.governor.threads)

    def _sensitivity(self, request: protocol.Baseline | protocol.Perturb) -> Iterator[protocol.Event]:
        from localai.engine.sensitivity import Sensitivity

        if self._loss is None:
            if not self._options.writable:
                raise EngineError("the weights of this model cannot be changed")
            self._loss = self._resources.enter_context(
                Sensitivity(self._model, self._settings, self._abort, pinned=self._pinned)
            )
        yield from self._loss.answer(request)

    def step(self) -> Iterator[protocol.Event]:
        """Compute one batch for the requests under way."""
        yield from self.scheduler.step()
        yield from self._reap()

    def drop(self) -> list[int]:
        """Give up all requests under way, after an error; their numbers."""
        self._conversations.clear()
        self._context.discard()
        return self.scheduler.drop()

    def _generate(self, request: protocol.Generate) -> Iterator[protocol.Event]:
        if (estimate := self._estimate(request.messages)) is not None:
            yield self._overflow(request, *estimate)
            return
        tokens, opened = self._prompter.prompt(request.messages, request.begun)
        if not budget.fits(len(tokens), self._context.size, request.limits.max_tokens):
            yield self._overflow(request, len(tokens), self._prompter.count(request.messages)[1])
            return
        splitter = self._voice.splitter(opened=opened, begun=request.begun)
        reply = Reply(request.id, splitter, len(tokens), request.limits, self._model.piece)
        sampling = request.sampling.completed_by(self._sampling)
        generation = Generation(self._voice, reply, tokens, sampling, request.limits, self._context)
        self._conversations[request.id] = request
        self._submit(generation)

    def _continue(self, request: protocol.Continue) -> Iterator[protocol.Event]:
        if not request.tokens or not all(0 <= token < self._model.vocabulary for token in request.tokens):
            raise EngineError("the tokens to continue are not tokens of this model")
        if len(request.tokens) >= self._context.size:
            yield protocol.Overflow(
                request.id,
                len(request.tokens),
                self._context.size,
                len(request.tokens) - self._context.size + 1,
                (),
            )
            return
        splitter = self._voice.splitter(opened=False)
        reply = Reply(request.id, splitter, len(request.tokens), request.limits, self._model.piece)
        sampling = request.sampling.completed_by(self._sampling)
        generation = Generation(
            self._voice,
            reply,
            request.tokens,
            sampling,
            request.limits,
            self._context,
            ignore_end=request.ignore_end,
        )
        self._submit(generation, speculate=not request.ignore_end)

    def _submit(self, generation: Generation, *, speculate: bool = True) -> None:
        if speculate and self._options.speculate and not generation.reproducible:
            drafter: Drafter = (
                NgramDrafter(generation.tokens)
                if self._drafter is None
                else ModelDrafter(self._drafter, generation.tokens)
            )
            generation.speculate(drafter, self._policy)
        self.scheduler.submit(generation)
        self._fix_threads()

    def _fix_threads(self) -> None:
        self.governor.fixed = self._pinned or any(g.reproducible for g in self.scheduler.requests)

    def _reap(self) -> Iterator[protocol.Event]:
        ended = self.scheduler.reap()
        if ended:
            self._fix_threads()
        for generation in ended:
            yield from generation.finish()
        for generation in ended:
            request = self._conversations.pop(generation.id, None)
            # Who cancels a long prompt does not want it read in idle time.
            if request is not None and not generation.reading:
                with suppress(LocalAIError):  # a template may fail on the longer conversation
                    self._prepare_next(request, generation)

    def _prepare_next(self, request: protocol.Generate, generation: Generation) -> None:
        """Bring the cache to what the next prompt begins with: the bare answer instead of the thinking."""
        answer, tokens = generation.drawn()
        thinking, said, drawn = generation.written()
        if (begun := request.begun) is not None:
            answer, tokens = begun.answer + answer, []
            thinking, said = begun.thinking + thinking, begun.answer + said
            before = self._prompter.drawn_of(begun)
            drawn = [*before, *drawn] if before else []
        if drawn:
            self._prompter.remember_whole(thinking, said, drawn)
        if tokens:
            self._prompter.remember(answer, tokens)
        if answer:
            ahead = self._prompter.next_opening(request.messages, answer)
        else:
            ahead = self._prompter.opening(request.messages)
        generation.sequence.keep_common(ahead)
        if len(ahead) < self._context.size:
            self.scheduler.read_ahead(ahead)

    # ------------------------------------------------------------------------------------- what it costs

    def _count(self, request: protocol.Count) -> protocol.Counted:
        if (estimate := self._estimate(request.messages)) is not None:
            return protocol.Counted(request.id, *estimate, 0, self._context.size, None)
        tokens, _ = self._prompter.prompt(request.messages)
        total, each = self._prompter.count(request.messages)
        cached = self.scheduler.cache.common(tokens)
        token_s = self.scheduler.pieces.token_s
        return protocol.Counted(
            request.id,
            total,
            each,
            cached,
            self._context.size,
            None if token_s is None else (total - cached) * token_s,
        )

    def _estimate(self, messages: Sequence[ChatMessage]) -> tuple[int, tuple[int, ...]] | None:
        """(tokens, tokens of each message) of what is so long that it cannot fit; else None.

        It would take seconds, or minutes, to find its tokens. They are guessed from the first of each
        message, but never as fewer than there must be.
        """
        sizes = [len(message.content.encode("utf-8", "replace")) for message in messages]
        if sum(sizes) <= QUICKLY_READ:
            return None
        longest = self._model.longest_piece
        if sum(sizes) < self._context.size * longest:
            return None
        each = []
        for message, size in zip(messages, sizes, strict=True):
            sample = message.content[:SAMPLE]
            read = len(sample.encode("utf-8", "replace"))
            found = len(self._prompter.plain(sample))
            each.append(max(-(-size // longest), found * size // max(read, 1)))
        return sum(each), tuple(each)

    def _overflow(self, request: protocol.Generate, total: int, each: tuple[int, ...]) -> protocol.Overflow:
        size = self._context.size
        enlarged = self._plan.most_context()
        larger, most = enlarged if enlarged > size else None, request.limits.max_tokens
        offers = budget.offers(each, request.messages, total, size, larger, most)
        over = max(1, budget.over(total, size, most))
        return protocol.Overflow(request.id, total, size, over, offers)

    def _status(self, request: protocol.Status) -> protocol.StatusReport:
        cache = self.scheduler.cache
        return protocol.StatusReport(
            request.id,
            memory=int(psutil.Process().memory_info().rss),
            context=self._context.size,
            live=tuple(len(sequence) for sequence in cache.sequences),
            parked=tuple(len(parked.tokens) for parked in cache.parked),
            parked_bytes=cache.parked_bytes,
            threads=self.governor.threads,
        )

    # --------------------------------------------------------------------------------------- saved states

    def _save(self, request: protocol.Save) -> Iterator[protocol.Event]:
        opening = self._prompter.opening([*request.messages, ChatMessage("user", "")])
        held = self.scheduler.cache.export(opening)
        if held is None or not held.data:
            yield protocol.StatePart(request.id, b"", last=True)
            return
        replies = self._prompter.drawn(request.messages)
        checksum = zlib.adler32(held.data)
        size = len(held.data)
        state = _State(self._fingerprint, held.tokens, held.on_grid, size, checksum, replies)
        head = msgspec.msgpack.encode(state)
        yield protocol.StatePart(request.id, len(head).to_bytes(_LENGTH_BYTES, "little") + head, last=False)
        with memoryview(held.data) as view:
            for start in range(0, len(view), STATE_PART):
                part = bytes(view[start : start + STATE_PART])
                yield protocol.StatePart(request.id, part, last=start + STATE_PART >= len(view))

    def _restore(self, request: protocol.Restore) -> Iterator[protocol.Event]:
        self._incoming += request.data
        if request.last:
            data, self._incoming = self._incoming, bytearray()
            yield protocol.Restored(request.id, self._adopt(data))

    def _matches(self, state: _State, data: bytearray) -> bool:
        known = range(self._model.vocabulary)
        return (
            state.fingerprint == self._fingerprint
            and 0 < len(state.tokens) < self._context.size
            and 0 <= state.on_grid <= len(state.tokens)
            and all(token in known for drawn in (state.tokens, *state.replies.values()) for token in drawn)
            and len(data) == state.size > 0
            and zlib.adler32(data) == state.checksum
        )

    def _adopt(self, data: bytearray) -> int:
        """Take in a state; the number of its tokens, 0 if it is not one of this model."""
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
        try:
            state = _states.decode(data[_LENGTH_BYTES:end])
        except msgspec.DecodeError:
            return 0
        del data[:end]
        if not self._matches(state, data):
            return 0
        for reply, tokens in state.replies.items():
            self._prompter.remember(reply, tokens)
        adopted = self.scheduler.cache.adopt(Parked(state.tokens, state.on_grid, data))
        return len(state.tokens) if adopted else 0
