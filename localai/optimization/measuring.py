"""What each group of matrices costs: how far the model is from itself where only they are coarser."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from localai.engine.client import Engine
from localai.engine.protocol import Matrix
from localai.engine.settings import LoadOptions
from localai.evaluation.kept import identity
from localai.evaluation.run import Candidate
from localai.optimization import choosing, kept
from localai.optimization.groups import Group, groups
from localai.optimization.kept import Key, Measured
from quantize.protocol import Errors
from quantize.texts import Text

BUDGET_S: Final = 1_200.0
"""Seconds that measuring may take, about: with less time for each, more matrices are measured alone."""

OnStep = Callable[[int, int, str], None]
"""Groups that are done, of how many, and which is next."""


class Reading(NamedTuple):
    """What the model reads each time."""

    text: Text
    context: int
    """Tokens of each piece, the second half of which counts."""
    chunks: int
    threads: int | None
    importance: str
    """What tells the importance matrix from others."""


class Costs(NamedTuple):
    """What was found."""

    groups: tuple[tuple[Group, Measured], ...]
    costs: dict[str, float]
    """By tensor, as `choosing.Costs`."""
    tokens: int
    """That count, in each reading."""


async def measure(
    base: Candidate,
    errors: Mapping[str, Errors],
    importance: Mapping[str, NDArray[np.float32]],
    reading: Reading,
    on_step: OnStep,
) -> Costs:
    """Load `base`, a file in floats or Q8_0, and measure all groups of the matrices in `errors`.

    What was measured before, for another size or by a run that was stopped, is not measured again. Raises
    from the error tree.
    """
    engine = Engine()
    try:
        options = LoadOptions(
            context=max(reading.context, 256),
            threads=reading.threads,
            speculate=False,
            converse=False,
            writable=True,
        )
        await engine.load(
            base.path, options, sha256=base.sha256, name=base.stored_name, made_here=base.made_here
        )
        return await _measure(engine, base, errors, importance, reading, on_step)
    finally:
        await engine.close()


async def _measure(
    engine: Engine,
    base: Candidate,
    errors: Mapping[str, Errors],
    importance: Mapping[str, NDArray[np.float32]],
    reading: Reading,
    on_step: OnStep,
) -> Costs:
    on_step(0, 0, "the text")
    started = time.monotonic()
    text = reading.text
    baseline = await engine.baseline(text.content, reading.context, reading.chunks, special=text.special)
    each = time.monotonic() - started
    path = Key(
        base=identity(base.path, base.sha256),
        text=hashlib.sha256(text.content.encode()).hexdigest(),
        context=reading.context,
        chunks=reading.chunks,
        imatrix=reading.importance,
        llama_cpp_commit=(await engine.describe()).llama_cpp_commit,
    ).path
    before = kept.load(path)
    most = _most(max(1, int(BUDGET_S / max(each, 1e-3))), before.most)
    if most != before.most:
        kept.add(path, kept.Begun(most))
    wanted = groups(errors, most)
    found: list[tuple[Group, Measured]] = []
    for number, group in enumerate(wanted):
        on_step(number, len(wanted), group.name)
        kind = choosing.probe(group, errors)
        one = before.measured.get((group.tensors, kind))
        if one is None:
            matrices = [Matrix(name, kind, _packed(importance.get(name))) for name in group.tensors]
            lost = await engine.perturb(matrices)
            one = Measured(group.tensors, kind, lost.kl, lost.kl_stderr)
            kept.add(path, one)
        found.append((group, one))
    on_step(len(wanted), len(wanted), "")
    costs: dict[str, float] = {}
    for group, one in found:
        costs |= choosing.costs(group, errors, one.type, one.kl)
    return Costs(tuple(found), costs, baseline.tokens)


def _most(affordable: int, before: int) -> int:
    """Into how many groups to divide: as `before`, so that what was measured counts, if that is no pity.

    What else a machine does changes from run to run. It is one if there would now be time for twice as many.
    """
    return before if before and affordable < 2 * before else affordable


def _packed(values: NDArray[np.float32] | None) -> bytes:
    return b"" if values is None else values.astype("<f4").tobytes()
