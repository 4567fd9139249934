"""Which type to take, in one sentence with its reason, and what else would be gained or lost.

The rule is in `localai.comparison.choice`. Words such as "faster" are said of clear differences only; what is
said does not depend on the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from localai.comparison import front, words
from localai.comparison.choice import Choice, Limits, answers_more, choose, is_quick, needed
from localai.comparison.front import CLEAR, loss_of
from localai.comparison.result import Advice, Row
from localai.comparison.words import differences, grade, name, pace, places, sentence, size

STRANGE: Final = 1_000.0
"""Perplexity from which on a text is noise to a model: weak ones have a hundred with a language they know."""


def advise(
    rows: Sequence[Row], *, memory_usable: int, max_size: int | None = None, max_memory: int | None = None
) -> Advice | None:
    """Which of `rows` to take on a machine where a model may take `memory_usable` bytes.

    `max_size` limits the bytes of the file, `max_memory` those in memory. None: no loss is measured.
    `Advice.file_type` is "" if nothing fits.
    """
    known = front.measured(rows)
    if not known:
        return None
    limits = Limits(
        memory_usable if max_memory is None else min(memory_usable, max_memory),
        math.inf if max_size is None else max_size,
        max_size is not None or max_memory is not None,
    )
    found = choose(known, limits)
    if found.best is None:
        return Advice(
            file_type="", sentence=_nothing(known, found.context, limits), remarks=tuple(_unknown(rows))
        )
    remarks = [
        *_less_context(found.best, found),
        *_steps(found.best, known, found, limits),
        *_answers(found.best, known),
        *_dominated(known, found.fitting),
        *_strange(known),
        *_unknown(rows),
    ]
    text = _sentence(found.best, found, known, limits)
    return Advice(file_type=found.best.file_type, sentence=text, remarks=tuple(remarks))


def _sentence(best: Row, found: Choice, rows: list[Row], limits: Limits) -> str:
    loss, own = loss_of(best), name(best.file_type)
    same = f"it picks the same next word as {words.original(loss.reference)} in {places(loss.top1)} places"
    if len(rows) == 1:
        return f"{own} fits, and its loss is {grade(loss)}: {same}."
    if best in found.exact:
        return f"Take {own}: {_why(best, found.exact)}; {same}."
    within = "within the limits" if limits.given else "that fit here"
    much = "but its loss is severe" if loss.kl > words.MUCH else f"and its loss is {grade(loss)}"
    other = "; a smaller model in a finer type may serve better" if loss.kl > words.AT_TIMES else ""
    return f"Take {own}: of the types {within} it loses least, {much}: {same}{other}."


def _why(best: Row, exact: list[Row]) -> str:
    """Why the best one of those whose loss is hardly noticeable is that."""
    speed = f"{pace(best.speed.generate.median)} tokens/s" if best.speed else ""
    if is_quick(best):
        quick = f"it is quick here ({speed})" if speed else f"it is small ({size(best.size)})"
        return f"its loss is hardly noticeable, and {quick}"
    if len(exact) == 1:
        return "it is the only one whose loss is hardly noticeable" + (f" ({speed})" if speed else "")
    least = f"fastest ({speed})" if speed else f"smallest ({size(best.size)})"
    return f"it is the {least} of those whose loss is hardly noticeable"


def _nothing(rows: list[Row], context: int, limits: Limits) -> str:
    least = min(rows, key=lambda row: (needed(row, context), row.size, row.file_type))
    where = "within the limits" if limits.given else "here"
    tokens = f" with {words.context(context)} tokens of context" if context else ""
    return (
        f"None of these types fits {where}: {name(least.file_type)}, the smallest, takes "
        f"{_lacks(least, context, limits, tokens)}."
    )


def _lacks(row: Row, context: int, limits: Limits, tokens: str = "") -> str:
    if row.size > limits.size:
        return f"{size(row.size)} of disk, and the limit is {size(limits.size)}"
    return f"{size(needed(row, context))} of memory{tokens}, and a model may take {size(limits.memory)}"


def _less_context(best: Row, found: Choice) -> list[str]:
    if found.context == found.most:
        return []
    few, many = words.context(found.context), words.context(found.most)
    return [f"{name(best.file_type)} fits with {few} tokens of context, but not with {many}."]


def _steps(best: Row, rows: list[Row], found: Choice, limits: Limits) -> list[str]:
    """What the next more exact type would bring, and the next less exact one."""
    others = [row for row in front.front(rows) if row != best]
    up = [row for row in others if front.ahead(row, best).loss > CLEAR]
    down = [row for row in others if front.ahead(row, best).loss < -CLEAR]
    nearest = [
        max(up, key=lambda row: (loss_of(row).kl, row.file_type), default=None),
        min(down, key=lambda row: (loss_of(row).kl, row.file_type), default=None),
    ]
    return [_step(row, best, found, limits) for row in nearest if row is not None]


def _step(row: Row, best: Row, found: Choice, limits: Limits) -> str:
    apart = differences(row, best, absolute=True)
    good = sentence([one for one in apart if one.better])
    bad = sentence([one for one in apart if not one.better])
    lacks = "" if row in found.fitting else f"; it takes {_lacks(row, found.context, limits)}"
    said = ", but ".join(part for part in (good, bad) if part)
    return f"Compared with {name(best.file_type)}, {name(row.file_type)} {said}{lacks}."


def _answers(best: Row, rows: list[Row]) -> list[str]:
    mine = best.answers
    if not mine or not mine.asked:
        return []
    fewer = sorted(name(row.file_type) for row in rows if answers_more(best, row))
    more = sorted(name(row.file_type) for row in rows if answers_more(row, best))
    than = f", clearly more than {_list(fewer)}" if fewer else ""
    than += f", clearly fewer than {_list(more)}" if more else ""
    own = name(best.file_type)
    return [f"{own} answered {mine.right} of {mine.asked} questions rightly ({name(mine.set)}){than}."]


def _strange(rows: list[Row]) -> list[str]:
    """That the original cannot read the text: what others lose on it says little of what they do in use."""
    least = min(loss_of(row).perplexity / max(loss_of(row).perplexity_ratio, 1e-9) for row in rows)
    if least < STRANGE:
        return []
    return [
        f"This text means nothing to the model (perplexity {least:,.0f}): trust right answers more than "
        "losses, or compare on a text of its own world with --text."
    ]


def _dominated(rows: list[Row], fitting: list[Row]) -> list[str]:
    """One sentence for each type that another makes pointless; of one that fits, another that fits."""
    found = [(row, front.dominator(row, fitting if row in fitting else rows)) for row in rows]
    return [
        f"{name(row.file_type)} is dominated here: {name(better.file_type)} {_than(better, row)}."
        for row, better in found
        if better is not None
    ]


def _than(better: Row, row: Row) -> str:
    """In what it is better, and what is the same within the error."""
    steps = front.ahead(better, row)
    same = [] if abs(steps.loss) > CLEAR else ["its loss is the same within the error"]
    same += (
        []
        if math.isnan(steps.speed) or abs(steps.speed) > CLEAR
        else ["its speed is the same within the error"]
    )
    return ", and ".join([sentence([one for one in differences(better, row) if one.better]), *same])


def _unknown(rows: Sequence[Row]) -> list[str]:
    names = sorted(name(row.file_type) for row in rows if row.loss is None)
    return [f"Not measured, and so not considered: {_list(names)}."] if names else []


def _list(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
