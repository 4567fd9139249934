"""What drafts from the conversation's own text gain, and that they change nothing, as ratios.

Two engines with the same model, one with `speculate` and one without, write in turns:

- replies that repeat their prompt (quote this text, change a name in this code), and a text that begins
  again; those of which at least half was repeated without drafts count. The claim: at least 1.5 of the tokens
  per second without drafts;
- answers to plain questions, with the sampling that the model recommends. The claim: at least 0.97;
- greedy replies, to compare their texts. The claim: where one differs, the two likeliest tokens were nearer
  to each other than llama.cpp's own results are when it evaluates several tokens at once ("a tie");
- sums by r1-nano, where it is installed. The claim: all answers are the same.

Usage: python benchmarks/speculate.py [MODEL] [--rounds 3] [--replies 24] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from common import (
    GREEDY,
    Timed,
    bare,
    compared,
    loaded,
    parser,
    print_json,
    prompt_text,
    reply,
    resolve,
    run,
    settled,
    shown,
)

from localai import hardware
from localai.chat.messages import ChatMessage
from localai.chat.prompt import END_THINK, THINK
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import ModelError
from models.store import Resolved, Store

COPY_CLAIM, CHAT_CLAIM = "at least 1.5", "at least 0.97"
CONTEXT = 2048
WINDOW = 4
"""Words in a row that stand in the prompt are repeated."""
REPEATED = 0.5
SUMS = "r1-nano"

STORY = """The harbour of Lindholm freezes in most winters, and for six weeks no ship comes in or goes out. \
In 1868 the ice stayed until May. The baker, Karl Aune, counted his flour on the first of April and \
found eleven sacks; the town had four hundred people. He wrote the number on a slate and hung it in \
the window, so that nobody would have to ask. Each morning he wiped the slate and wrote the new one. \
When it said three, the fishermen sawed a channel through the ice, two miles long, in nine days and \
nights. The first ship that came through it carried oranges and a piano."""
CODE = """def read_settings(path):
    settings = {}
    with open(path) as file:
        for number, line in enumerate(file, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, separator, value = line.partition("=")
            if not separator:
                raise ValueError(f"line {number} of {path} has no value")
            settings[name.strip()] = value.strip()
    return settings


def write_settings(path, settings):
    with open(path, "w") as file:
        for name, value in sorted(settings.items()):
            file.write(f"{name} = {value}\\n")
"""
TABLE = """Anna Berg, Oslo, 1984, 1200
Piet Jansen, Utrecht, 1991, 850
Maria Rossi, Torino, 1979, 2300
John Miller, Leeds, 2001, 410
Eva Novak, Brno, 1988, 990
Luis Ortega, Sevilla, 1995, 1675
Aino Laine, Turku, 1983, 720
Marc Petit, Nantes, 1990, 1310"""
COPIES = {
    "quote": f"Repeat the following text exactly:\n\n{STORY}",
    "spelling": f"Correct the spelling in this text and change nothing else:\n\n{STORY}",
    "rename": f"Rename the variable `settings` to `options` in this code and print the whole code:\n\n"
    f"```python\n{CODE}```",
    "table": f"Repeat this table exactly:\n\n{TABLE}",
}
CHATS = (
    "Why is the sky blue?",
    "What should I pack for a week in the mountains?",
    "Write a short poem about the sea in autumn.",
    "How does a bicycle stay upright?",
    "Tell me something surprising about bees.",
)
TOPICS = ("tides", "bread", "glaciers", "chess", "the violin", "volcanoes", "tea", "bridges", "owls", "maps")
FORMS = (
    "Explain {} in one paragraph.",
    "List five facts about {}.",
    "Write a Python function that has to do with {}, and explain it.",
    "What would a child ask about {}? Answer it.",
)


class _Engines(NamedTuple):
    """The same model twice."""

    plain: Engine
    drafting: Engine

    async def in_turns(
        self,
        prompt: Sequence[ChatMessage] | Sequence[int],
        sampling: Sampling,
        limits: Limits,
        turn: int,
    ) -> tuple[Timed, Timed]:
        """The reply of each, one after the other; which comes first changes with `turn`."""
        found: list[Timed] = []
        for engine in self if turn % 2 == 0 else reversed(self):
            found.append(await reply(engine, prompt, sampling, limits))
            await settled(engine)  # what it reads ahead would disturb the other
        plain, drafting = found if turn % 2 == 0 else found[::-1]
        return plain, drafting


def main() -> None:
    arguments = _arguments()
    found = run(measure(resolve(arguments.model), arguments))
    if arguments.json:
        print_json(found)
    else:
        _print(found)


async def measure(model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """All four parts."""
    async with AsyncExitStack() as stack:
        engines = await _loaded(stack, model, arguments)
        found: dict[str, Any] = {
            "model": model.name,
            "copying": await copying(engines, model, arguments),
            "chat": await chatting(engines, arguments),
            "greedy": await greedy(engines, model, arguments),
        }
    found["sums"] = await sums(arguments)
    return found


async def _loaded(stack: AsyncExitStack, model: Resolved, arguments: argparse.Namespace) -> _Engines:
    plain, drafting = (
        LoadOptions(context=CONTEXT, threads=arguments.threads, speculate=speculate)
        for speculate in (False, True)
    )
    return _Engines(
        await stack.enter_async_context(loaded(model, plain)),
        await stack.enter_async_context(loaded(model, drafting)),
    )


# ---------------------------------------------------------------------------------------------- the speed


async def copying(engines: _Engines, model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """Replies that repeat their prompt."""
    whole = f"{STORY}\n\n{CODE}\n\n{TABLE}\n\n"
    begun = f"{whole}{whole}{STORY[:80]}"
    prompts: dict[str, list[ChatMessage] | list[int]] = {
        name: [ChatMessage("user", text)] for name, text in COPIES.items()
    }
    limits = Limits(max_tokens=arguments.tokens * 3 // 2, think_budget=0)
    room = CONTEXT - arguments.tokens * 3 // 2
    prompts["going on"] = bare("tokens", path=str(model.path), text=begun)["tokens"][-room:]
    texts = {**COPIES, "going on": begun}
    tasks: dict[str, list[tuple[Timed, Timed]]] = {name: [] for name in prompts}
    shares: dict[str, float] = {}
    for number, (name, done) in itertools.product(range(arguments.rounds), tasks.items()):
        if shares.get(name, 1.0) >= REPEATED:
            done.append(await engines.in_turns(prompts[name], GREEDY, limits, number))
            shares[name] = repeated(done[0][0].text, texts[name])
    counted = [done for name, done in tasks.items() if shares[name] >= REPEATED]
    return {
        **_ratio([list(turn) for turn in zip(*counted, strict=True)], COPY_CLAIM),
        "tasks": {
            name: {"repeated": shares[name], **_ratio([[pair] for pair in done], COPY_CLAIM), **_drafts(done)}
            for name, done in tasks.items()
        },
    }


async def chatting(engines: _Engines, arguments: argparse.Namespace) -> dict[str, Any]:
    """Answers to plain questions."""
    limits = Limits(max_tokens=arguments.tokens)
    rounds = []
    for number in range(arguments.rounds):
        prompts = [[ChatMessage("user", text)] for text in CHATS]
        rounds.append([await engines.in_turns(prompt, Sampling(), limits, number) for prompt in prompts])
    return {**_ratio(rounds, CHAT_CLAIM), **_drafts([pair for pairs in rounds for pair in pairs])}


def _ratio(rounds: Sequence[Sequence[tuple[Timed, Timed]]], claim: str) -> dict[str, Any]:
    """The rates of each round, with drafts over without; "ratio" is None where nothing was written."""
    if not rounds:
        return {"ratio": None, "claim": claim}
    plain = [_rate([pair[0] for pair in pairs]) for pairs in rounds]
    drafting = [_rate([pair[1] for pair in pairs]) for pairs in rounds]
    if not all(plain):
        return {"ratio": None, "claim": claim}
    return compared(drafting, plain, claim)


def _rate(replies: Sequence[Timed]) -> float:
    """Tokens per second over all."""
    seconds = sum(timed.written[1] for timed in replies)
    return sum(timed.written[0] for timed in replies) / seconds if seconds else 0.0


def _drafts(pairs: Sequence[tuple[Timed, Timed]]) -> dict[str, int]:
    done = [drafting.done for _, drafting in pairs]
    return {
        "tokens": sum(end.usage.completion_tokens for end in done),
        "drafted": sum(end.speculated.drafted for end in done),
        "accepted": sum(end.speculated.accepted for end in done),
    }


def repeated(text: str, prompt: str) -> float:
    """The share of the words of `text` that stand in the prompt in the same order, `WINDOW` in a row."""
    words, source = text.split(), prompt.split()
    known = {tuple(source[at : at + WINDOW]) for at in range(len(source) - WINDOW + 1)}
    covered: set[int] = set()
    for at in range(len(words) - WINDOW + 1):
        if tuple(words[at : at + WINDOW]) in known:
            covered.update(range(at, at + WINDOW))
    return len(covered) / max(len(words), 1)


# ---------------------------------------------------------------------------------------------- the texts


async def greedy(engines: _Engines, model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """How many greedy replies have another text with drafts, and where."""
    asked = [form.format(topic) for form, topic in itertools.product(FORMS, TOPICS)]
    prompts = [*COPIES.values(), *random.Random(1).sample(asked, len(asked))][: arguments.replies]
    limits = Limits(max_tokens=arguments.tokens * 2 // 3)
    pairs, differing = [], []
    for number, prompt in enumerate(prompts):
        pair = await engines.in_turns([ChatMessage("user", prompt)], GREEDY, limits, number)
        pairs.append(pair)
        if pair[0].text != pair[1].text:
            count = pair[0].done.usage.completion_tokens
            place = where(model, prompt, pair[0].text, pair[1].text, count, arguments)
            differing.append({"prompt": prompt, **place})
    return {"replies": len(pairs), **_drafts(pairs), "differing": differing}


def where(
    model: Resolved, prompt: str, one: str, other: str, count: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The first token that differs, and how near its choice was; `one` has `count` tokens.

    None where the bare loop cannot tell because it has written something else before: it reads the prompt at
    once, and that is enough for a tie to fall otherwise.
    """
    given = {"path": str(model.path), "threads": arguments.threads or hardware.physical_cores()}
    tokens = bare("tokens", text=prompt_text(model.header(), prompt), **given)["tokens"]
    found = bare("margins", tokens=tokens, count=count + 1, **given)  # the last may be the end itself
    noise = max(found["noise"])
    place = len(_squeezed(one[: _common(one, other)]))
    written = _squeezed("".join(found["pieces"]))
    if written[:place] != _squeezed(one)[:place]:
        return {"token": None, "margin": None, "noise": noise, "tie": None}
    likely = _other_way(found["pieces"], found["seconds"], place, _squeezed(other))
    at = min(likely or _tokens_at(place, found["pieces"]), key=lambda index: found["margins"][index])
    margin = found["margins"][at]
    return {"token": at, "margin": margin, "noise": noise, "tie": margin <= noise}


def _other_way(pieces: Sequence[str], seconds: Sequence[str], place: int, other: str) -> list[int]:
    """The last token whose second likeliest leads to `other`, if there is one: both may begin alike."""
    starts = itertools.accumulate((len(_squeezed(piece)) for piece in pieces), initial=0)
    found = [
        index
        for index, (start, first, second) in enumerate(zip(starts, pieces, seconds, strict=False))
        if start <= place
        and _squeezed(first) != _squeezed(second)
        and other.startswith(_squeezed(second), start)
        and start + len(_squeezed(second)) > place
    ]
    return found[-1:]


def _tokens_at(place: int, pieces: Sequence[str]) -> list[int]:
    """The token with that character, white space not counted, and the white space before it."""
    ends = list(itertools.accumulate(len(_squeezed(piece)) for piece in pieces))
    starts = [0, *ends]
    return [i for i, end in enumerate(ends) if starts[i] <= place < end or starts[i] == place == end] or [
        len(pieces) - 1
    ]


def _common(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _squeezed(text: str) -> str:
    """Without white space and tags, which the engine takes off the parts of a reply."""
    return "".join(text.replace(THINK, "").replace(END_THINK, "").split())


async def sums(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Sums that are asked of a model which can do them; None where it is not installed."""
    try:
        model = Store().resolve(arguments.sums)
    except ModelError:
        return None
    source = random.Random(2)
    same = right = 0
    async with AsyncExitStack() as stack:
        engines = await _loaded(stack, model, arguments)
        pairs = []
        for number in range(arguments.replies):
            a, b = source.randrange(1000), source.randrange(1000)
            prompt = [ChatMessage("user", f"What is {a} + {b}?")]
            plain, drafting = await engines.in_turns(prompt, GREEDY, Limits(), number)
            pairs.append((plain, drafting))
            same += plain.text == drafting.text
            right += drafting.text.endswith(f"{a} + {b} = **{a + b}**")
    return {"model": model.name, "replies": len(pairs), "same": same, "right": right, **_drafts(pairs)}


# ------------------------------------------------------------------------------------------------- output


def _print(found: dict[str, Any]) -> None:
    print(found["model"])
    _print_ratio("replies that repeat their prompt", found["copying"])
    for name, task in found["copying"]["tasks"].items():
        ratio = "not counted" if task["repeated"] < REPEATED else f"ratio {task['ratio']:.3f}"
        print(f"  {name:<10} {ratio}, {task['repeated']:.0%} repeated, {_drafts_shown(task)}")
    _print_ratio("plain answers", found["chat"])
    print(f"  {_drafts_shown(found['chat'])}")
    texts = found["greedy"]
    print(f"greedy: {len(texts['differing'])} of {texts['replies']} texts differ, {_drafts_shown(texts)}")
    for place in texts["differing"]:
        print(f"  {_place_shown(place)}: {' '.join(place['prompt'].split())[:60]}")
    if (done := found["sums"]) is None:
        print("sums: r1-nano is not installed")
    else:
        same = f"{done['same']} of {done['replies']} texts are the same, {done['right']} right"
        print(f"sums by {done['model']}: {same}, {_drafts_shown(done)}")


def _print_ratio(name: str, found: dict[str, Any]) -> None:
    print(f"{name}: {shown(found) if found['ratio'] is not None else 'none was written'}")


def _drafts_shown(found: dict[str, int]) -> str:
    return f"{found['tokens']:,} tokens, {found['accepted']:,} of {found['drafted']:,} drafted were right"


def _place_shown(place: dict[str, Any]) -> str:
    if place["tie"] is None:
        return "not known, the bare loop has another text before"
    kind = "a tie" if place["tie"] else "NO TIE"
    return f"{kind} at token {place['token']}, by {place['margin']:.4f} with noise to {place['noise']:.4f}"


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=3)
    found.add_argument("--replies", type=int, default=24, help="texts that are compared, at most 44")
    found.add_argument("--tokens", type=int, default=200, help="of each reply, about")
    found.add_argument("--sums", metavar="MODEL", default="r1-nano", help="the model that can do sums")
    return found.parse_args()


if __name__ == "__main__":
    main()
