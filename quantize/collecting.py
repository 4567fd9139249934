"""Collects an importance matrix: a model reads a text in the engine's worker, and what it used is added up.

    collected = collect(Path("model.gguf"), Text("a text", content), Reading(context=512))

The app neither parses the weights nor loads llama.cpp. What the worker sends is believed only as far as it
fits the header of the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from localai import hardware
from localai.engine.client import Engine
from localai.engine.protocol import Activations, Observed, ObserveProgress
from localai.engine.settings import LoadOptions
from localai.errors import EngineError, QuantizeError
from models import fit
from models.header import Header
from models.parts import read_whole
from quantize import client, imatrix_file
from quantize.client import OnEvent
from quantize.imatrix_file import Collected, Usage
from quantize.partials import Partial
from quantize.protocol import Forecast, Job
from quantize.self_text import SelfText, require_chat, text_of
from quantize.texts import OnTokens as OnTokens
from quantize.texts import Reading as Reading
from quantize.texts import Text as Text

CHUNK: Final = 512
"""Tokens of each piece of text unless `Reading` has another number: as llama-imatrix."""

_SMALL_BATCH = 16
"""Of the context that conversations would use, and that is not used here."""


def collect(
    model: Path,
    text: Text,
    reading: Reading = Reading(),
    on_tokens: OnTokens = lambda done, total: None,
    *,
    name: str = "",
    sha256: str = "",
    made_here: bool = False,
) -> Collected:
    """How strongly the GGUF at `model` uses its matrices where it reads `text`. Raises from the error tree.

    `name`, `sha256` and `made_here` as in `Engine.load`. Whatever ends this call ends the worker.
    """
    header = read_whole(model, reading.allow_architectures)
    chunk = reading.context or min(CHUNK, header.context_trained or CHUNK)
    options = LoadOptions(
        context=chunk,
        threads=reading.threads,
        gpu_layers=reading.gpu_layers,
        batch=_SMALL_BATCH,
        speculate=False,
        allow_architectures=reading.allow_architectures,
        converse=False,
    )

    async def work() -> Collected:
        engine = Engine()
        try:
            await engine.load(model, options, name=name, sha256=sha256, made_here=made_here)
            return await _listen(engine, header, text, chunk, reading.chunks, on_tokens)
        finally:
            await engine.close()

    return asyncio.run(work())


async def _listen(
    engine: Engine, header: Header, text: Text, chunk: int, chunks: int, on_tokens: OnTokens
) -> Collected:
    matrices: dict[str, Usage] = {}
    columns = {tensor.name: tensor.shape[0] for tensor in header.tensors}
    async for event in engine.observe(text.content, chunk, chunks, special=text.special):
        match event:
            case ObserveProgress(done=done, total=total):
                on_tokens(done, total)
            case Activations(name=name):
                matrices[name] = _checked(event, columns.get(name, 0))
            case Observed(chunks=found) if matrices and 0 < found < 1 << 31:
                return Collected(text.name, found, chunk, matrices)
    raise EngineError("the engine sent no importance matrix")


def _checked(event: Activations, columns: int) -> Usage:
    """What the worker says of one matrix, if it can be; EngineError."""
    sums = np.frombuffer(event.sums, "<f8") if len(event.sums) == 8 * columns else np.zeros(0)
    if not (sums.size and np.isfinite(sums).all() and (sums >= 0).all() and 0 < event.rows < 1 << 62):
        raise EngineError(f"the engine sent sums for {event.name!r} that do not fit the model")
    return Usage(sums, event.rows)


@contextmanager
def collected_for(
    job: Job,
    folder: Path,
    text: Text | SelfText,
    on_event: OnEvent,
    on_tokens: OnTokens,
    on_written: OnTokens = lambda done, total: None,
    *,
    types: Collection[str] = (),
) -> Iterator[Job]:
    """`job` with an importance matrix of its own source, made from `text`, for the body of the block.

    `types` are the names of those that are going to be made with it.

    A checkpoint is converted to Q8_0 first, and so is a GGUF in floats that memory cannot hold; any other is
    read itself. The same file writes the text, if it is still to be written. Both files take room on the
    disk of `folder`, and never get a name. What is wrong with `job` is told before a long text is read.
    Raises from the error tree.
    """
    known = client.forecast(msgspec.structs.replace(job, imatrix_promised=text.name))
    if isinstance(text, SelfText):
        require_chat(known, job.source)
    _require_possible(known, types)
    plain = Job(
        source=job.source,
        threads=job.threads,
        pre_tokenizer=job.pre_tokenizer,
        name=job.name,
        hash_inputs=False,
        allow_requantize=job.allow_requantize,
    )
    reading = Reading(threads=job.threads or None)

    def found_by(path: Path, *, made_here: bool) -> Collected:
        words = text_of(text, path, reading, on_written, made_here=made_here)
        return collect(path, words, reading, on_tokens, made_here=made_here)

    with Partial(folder / "localai-imatrix.gguf", overwrite=True) as partial:
        if _is_read_itself(Path(job.source)):
            found = found_by(Path(job.source), made_here=False)
        else:
            with client.scratch(plain, "Q8_0", folder, on_event) as path:
                found = found_by(path, made_here=True)
        imatrix_file.write(found, partial)
        yield msgspec.structs.replace(
            job, imatrix=str(partial.path), imatrix_name="auto", imatrix_promised=""
        )


def _require_possible(known: Forecast, types: Collection[str]) -> None:
    for one in known.candidates:
        if one.needs_imatrix and one.file_type in types:
            raise QuantizeError(
                f"{one.file_type} needs importances also of the output or the embeddings, which are left out",
                "Choose another type, or one for them: --output-type and --embedding-type, such as Q6_K",
            )


def _is_read_itself(source: Path) -> bool:
    if source.is_dir():
        return False
    header = read_whole(source)
    needed = fit.memory_needed(fit.Shape.of(header), fit.weights_read(header), CHUNK)
    return needed <= hardware.available_memory() or all(
        tensor.type_name not in ("F32", "F16", "BF16") for tensor in header.tensors if len(tensor.shape) > 1
    )
