"""What `localai quantize --optimize` prints: what it will do, and what it has found."""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localai.cli import output
from localai.comparison import selection, words
from localai.optimization import choosing

if TYPE_CHECKING:
    from localai.optimization.run import Checked, Optimized
    from quantize.protocol import Forecast

_WIDTH = 80
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.weight")
_MOST = 5
"""Groups of matrices that are named as those that matter most."""


def forecast(known: Forecast, max_size: int, memory: int, json: bool) -> None:
    """What will be made and what that takes; nothing was read yet but names and shapes.

    UsageError if the size leaves nothing to choose.
    """
    choosing.require_choice(known, max_size)
    close = next(one for one in known.candidates if one.file_type == selection.CLOSEST)
    reference = selection.reference(known, [close], memory, gguf=False)
    bits = 8 * max(0, max_size - known.fixed_bytes) / max(1, known.weights)
    disk = reference.size + 2 * max_size
    if json:
        output.print_json(
            {
                "optimization": {
                    "max_size": max_size,
                    "bits_per_weight": round(bits, 3),
                    "reference": reference.file_type,
                    "disk_needed": disk,
                    "notes": list(reference.notes),
                }
            }
        )
        return
    print(f"{known.architecture}, {output.count(known.weights)} parameters in {known.source_type}")
    _say(f"At most {output.size(max_size)}: {bits:.2f} bits per weight on average.")
    for note in reference.notes:
        _say(f"- {note}")
    _say(
        f"Each group of matrices is measured in memory, in {reference.file_type}, which takes "
        f"{output.size(reference.size)}. That takes about 20 minutes at most, and the rest as long as to "
        "quantize the model twice and to read two texts."
    )
    _say(f"Disk: up to {output.size(disk)} meanwhile.")


def show(found: Optimized, kept: str, recipe: str, json: bool) -> None:
    """The result. `kept`: the file's path or name; `recipe`: the file of the recipe, or ""."""
    if json:
        output.print_json(_as_data(found, kept, recipe))
        return
    made = found.recipe
    checked = [found.mixed, *([found.usual] if found.usual is not None else [])]
    print(f"{output.one_line(kept)}: {made.bits_per_weight:.2f} bits per weight, {output.size(made.size)}")
    print()
    output.print_table(["TYPE", "SIZE", "SAME WORD", "KL", "PERPLEXITY"], [_row(one) for one in checked])
    loss = found.mixed.report
    _say(
        f"Compared with {loss.reference_file_type or 'the source'} on {loss.chunks} chunks of text that "
        "was not used to choose the types. SAME WORD: how often both go on with the same word. KL: how far "
        "the chances of all words are from those of the source; 0 is the same, less is better. PERPLEXITY: "
        "how surprised it is by the text, and how many times as much as the source; below x1 is no better, "
        "only otherwise. +-: the standard error; what is closer than twice that may be the same."
    )
    print()
    _say(_verdict(found))
    print()
    print("Where rounding costs most, by kind of matrix and layer, if all were rounded alike:")
    _list([(name, f"{share:.0%}") for name, share in _weightiest(found)])
    print()
    print("The type of each matrix, and behind it the layers that have it:")
    _list(by_kind(made.mixture.types))
    print()
    _say(f"The recipe is in {recipe}." if recipe else f"The recipe is kept with {kept}.")
    again = shlex.quote(recipe or kept)
    print(f"Try it:  localai chat {output.one_line(shlex.quote(kept))}")
    print("To use it for another model of this architecture:")
    print(f"  localai quantize MODEL --recipe {output.one_line(again)} --imatrix auto")


def _verdict(found: Optimized) -> str:
    usual, mixed = found.usual, found.mixed
    if usual is None:
        return f"No usual type is so small. {mixed.name} loses what is shown."
    mine, theirs = mixed.report.kl, usual.report.kl
    if mine is None or theirs is None or not theirs.mean:
        return ""
    less = 1 - mine.mean / theirs.mean
    if found.is_mixed:
        return f"{mixed.name} loses {less:.0%} less than {usual.name}, the best of the usual types that fits."
    return f"{usual.name}, the best of the usual types that fits, loses {-less:.0%} less: that was taken."


def _row(one: Checked) -> list[str]:
    report, kl = one.report, one.report.kl
    if kl is None:
        return [one.name, output.size(one.size), "", "", ""]
    same = _figure((report.top1_agreement or 0) * 100, (report.top1_agreement_stderr or 0) * 100)
    ratio = _figure(report.perplexity_ratio or 0, report.perplexity_ratio_stderr or 0)
    return [
        one.name,
        output.size(one.size),
        f"{same} %",
        _figure(kl.mean, kl.mean_stderr),
        f"{words.surprise(report.perplexity)}, x{ratio}",
    ]


def _figure(value: float, error: float) -> str:
    return words.with_error(value, error).replace(" ± ", "+-")


def _weightiest(found: Optimized) -> list[tuple[str, float]]:
    """The groups whose matrices would cost most in the same bits, and their shares of all."""
    costs = {
        group.name: sum(found.costs.costs[name] for name in group.tensors) for group, _ in found.costs.groups
    }
    total = sum(costs.values())
    ordered = sorted(costs.items(), key=lambda item: (-item[1], item[0]))
    return [(name, cost / total if total else 0.0) for name, cost in ordered[:_MOST]]


def by_kind(types: Mapping[str, str]) -> list[tuple[str, str]]:
    """For each kind of matrix its types by layers, such as ("ffn_down", "Q6_K 0-2, Q4_K 3-29")."""
    kinds: dict[str, list[tuple[int, str]]] = {}
    for name, kind in types.items():
        match = _BLOCK.fullmatch(name)
        part = match[2] if match else name.removesuffix(".weight")
        kinds.setdefault(part, []).append((int(match[1]) if match else -1, kind))
    return [(part, ", ".join(_runs(sorted(layers)))) for part, layers in kinds.items()]


def _runs(layers: Iterable[tuple[int, str]]) -> list[str]:
    runs: list[tuple[int, int, str]] = []
    for layer, kind in layers:
        if runs and runs[-1][1:] == (layer - 1, kind):
            runs[-1] = (runs[-1][0], layer, kind)
        else:
            runs.append((layer, layer, kind))
    return [
        kind if last < 0 else f"{kind} {first}" if first == last else f"{kind} {first}-{last}"
        for first, last, kind in runs
    ]


def _as_data(found: Optimized, kept: str, recipe: str) -> dict[str, Any]:
    import msgspec

    return {
        "result": kept,
        "recipe_file": recipe,
        "recipe": msgspec.to_builtins(found.recipe),
        "is_mixed": found.is_mixed,
        "checked": [
            {"type": one.name, "size": one.size, **_losses(one)}
            for one in (found.mixed, found.usual)
            if one is not None
        ],
        "groups": [
            {
                "name": group.name,
                "tensors": list(group.tensors),
                "kl": one.kl,
                "kl_stderr": one.kl_stderr,
                "cost": found.costs.costs[group.tensors[0]],
            }
            for group, one in found.costs.groups
        ],
        "sha256": found.made.report.outputs[0].sha256,
    }


def _losses(one: Checked) -> dict[str, Any]:
    import msgspec

    report = one.report
    return {
        "chunks": report.chunks,
        "tokens": report.tokens,
        "perplexity": report.perplexity,
        "perplexity_ratio": report.perplexity_ratio,
        "kl": msgspec.to_builtins(report.kl),
        "top1_agreement": report.top1_agreement,
    }


def _list(rows: Sequence[tuple[str, str]]) -> None:
    """Two columns, the second one in lines that fit."""
    column = max((len(output.one_line(name)) for name, _ in rows), default=0) + 4
    for name, text in rows:
        for line in _lines(text, f"  {output.one_line(name)}".ljust(column), " " * column):
            print(line)


def _say(text: str) -> None:
    """A sentence in lines that fit."""
    for line in _lines(text, "", ""):
        print(line)


def _lines(text: str, first: str, rest: str) -> list[str]:
    width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, 100)
    return textwrap.wrap(output.one_line(text), max(width, 40), initial_indent=first, subsequent_indent=rest)
