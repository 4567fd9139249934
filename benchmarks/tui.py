"""The chat on a real pseudo-terminal: what it costs the model, and how soon it answers a key.

- tokens/s of a reply in the chat, as its status line says, as a ratio of `localai bench` with as many tokens,
  in turns. The claim: at least 0.95.
- from a key to its character on the terminal while a reply streams: the claim is a 95th percentile of 50 ms.
- from the start of `localai chat` to the first key on the screen with 10,000 stored conversations: 0.8 s.
- with --long TOKENS: memory of the app's process before and after one long reply, and its processor time for
  a token in the first and in the last quarter of it. The model gets the context that this takes, and may not
  end by itself: what it says is of no interest.

Usage: python benchmarks/tui.py [MODEL] [--rounds 3] [--tokens 400] [--conversations 10000] [--long 0]
       [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import psutil
from common import compared, parser, print_json, resolve, shown
from terminal import Terminal

from localai.history import History
from models.gguf import read_header

LOCALAI: Final = str(Path(sys.executable).with_name("localai"))
SIZE: Final = (120, 40)
QUESTION: Final = "Write a long story about a lighthouse keeper, the sea, and a letter that arrives too late."
RARE: Final = "¤§¶¥£¢"
"""Characters that no reply contains: where one of them comes from the terminal, the key was painted."""
ENDED: Final = re.compile("Cut at the limit|■|▲".encode())
FULL_LENGTH: Final = re.compile("Cut at the limit|✗".encode())
"""Not what is said meanwhile: an endless reply repeats itself."""
PATIENCE_S: Final = 120
CLAIMS: Final = {"speed": "at least 0.95", "key_p95_ms": 50.0, "start_s": 0.8}


class Chat(Terminal):
    """`localai chat` on a terminal of the size that the figures are for."""

    def __init__(self, *words: str, home: Path | None = None) -> None:
        super().__init__([LOCALAI, "chat", *words], SIZE, {} if home is None else {"LOCALAI_HOME": str(home)})

    def quit(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.type("\x11")
            with contextlib.suppress(TimeoutError):
                self.wait_for_end(20)
        self.close()


def main() -> None:
    arguments = _arguments()
    model = resolve(arguments.model).path
    ours, theirs = [], []
    for number in range(arguments.rounds):
        if number % 2:
            theirs.append(_bench(model, arguments.tokens))
        ours.append(reply(model, arguments.tokens)[0])
        if not number % 2:
            theirs.append(_bench(model, arguments.tokens))
    keys = reply(model, arguments.tokens, typing=True)[1]
    found = {
        "model": arguments.model,
        "tokens_per_s": statistics.median(ours),
        "bench_tokens_per_s": statistics.median(theirs),
        "speed": compared(ours, theirs, str(CLAIMS["speed"])),
        "keys": len(keys),
        "key_median_ms": statistics.median(keys) * 1e3 if keys else None,
        "key_p95_ms": sorted(keys)[int(len(keys) * 0.95)] * 1e3 if keys else None,
        "start_s": start_s(model, arguments.conversations, arguments.rounds),
        "long": long_reply(model, arguments.long) if arguments.long else None,
    }
    if arguments.json:
        print_json(found)
    else:
        _print(found)


def reply(model: Path, tokens: int, *, typing: bool = False) -> tuple[float, list[float]]:
    """(tokens/s of a reply, seconds from each key to its character if somebody is `typing` meanwhile)."""
    limit = ["--max-tokens", str(tokens), "--temperature", "0", "--no-speculate", "--incognito"]
    chat = Chat(str(model), *limit)
    try:
        chat.wait_for("ready")
        chat.type(QUESTION)
        chat.wait_for("too late")
        since = len(chat.raw)
        chat.type("\r")
        chat.wait_for("tok/s")
        source, pressed = random.Random(5), []
        while not ENDED.search(chat.raw, since):
            if typing:
                key, at = source.choice(RARE), len(chat.raw)
                began = chat.type(key)
                pressed.append(chat.wait_for_raw(key, at) - began)
            pause = time.perf_counter() + source.uniform(0.05, 0.3)
            while time.perf_counter() < pause:
                chat.read(0.02)
        rates = re.findall(r"([0-9.]+) tok/s", "\n".join(chat.screen))
        return float(rates[-1]), pressed[:-1]
    finally:
        chat.quit()


def long_reply(model: Path, tokens: int) -> dict[str, float]:
    """Memory in bytes before and after it, and the seconds of the processor for a token at both its ends."""
    with tempfile.TemporaryDirectory() as folder:
        wide = widened(model, Path(folder) / "wide.gguf", tokens + 2048)
        known = read_header(model).metadata
        ends = {known.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")} - {None}
        endless = [f"--logit-bias={token}=-inf" for token in ends]
        words = [
            "--max-tokens",
            str(tokens),
            "--context",
            str(tokens + 2048),
            "--no-speculate",
            "--incognito",
        ]
        chat = Chat(str(wide), *words, "--temperature", "1", *endless)
        try:
            chat.wait_for("ready", PATIENCE_S)
            process, before = psutil.Process(chat.process.pid), chat.memory()
            marks, since = [(0, sum(process.cpu_times()[:2]))], len(chat.raw)
            chat.type(QUESTION + "\r")
            while not FULL_LENGTH.search(chat.raw, since):
                since = max(since, len(chat.raw) - 100)
                chat.read(0.5)
                used = _used(chat)
                if used >= marks[-1][0] + tokens / 4:
                    marks.append((used, sum(process.cpu_times()[:2])))
            marks.append((_used(chat), sum(process.cpu_times()[:2])))
            costs = [
                (cpu - cpu0) / (used - used0)
                for (used0, cpu0), (used, cpu) in pairwise(marks)
                if used > used0
            ]
            return {
                "tokens": tokens,
                "memory_before": before,
                "memory_after": chat.memory(),
                "first_quarter_s": costs[0],
                "last_quarter_s": costs[-1],
            }
        finally:
            chat.quit()


def widened(model: Path, copy: Path, context: int) -> Path:
    """A copy of the model that says that it was trained for so much context."""
    data = bytearray(model.read_bytes())
    name = b".context_length"
    struct.pack_into("<I", data, data.index(name) + len(name) + 4, context)  # behind it stands its type
    copy.write_bytes(data)
    return copy


def _used(chat: Chat) -> int:
    """Tokens of the context that are in use, as the status line says."""
    found = re.findall(r"([0-9,]+) / [0-9,]+", chat.screen[-1])
    return int(found[-1].replace(",", "")) if found else 0


def _bench(model: Path, tokens: int) -> float:
    words = [LOCALAI, "bench", str(model), "--prompt", "0", "--generate", str(tokens), "--repetitions", "1"]
    done = subprocess.run([*words, "--json"], check=True, capture_output=True)
    return float(json.loads(done.stdout)["tests"][0]["tokens_per_s"])


def start_s(model: Path, conversations: int, rounds: int) -> float:
    """Median seconds from the start of the process to the first key on the screen."""
    from history import fill

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        chat = Chat(str(model), "--plain-history", home=home)  # makes the file and its protection
        chat.wait_for_raw("Enter sends")
        chat.quit()
        path = next(home.rglob("conversations.sqlite"))
        path.unlink()
        fill(path, None, conversations, 2)
        with History(path) as history:
            assert history.count()[0] == conversations
        taken = []
        for number in range(rounds + 1):
            began = time.perf_counter()
            chat = Chat(str(model), "--plain-history", home=home)
            try:
                chat.wait_for_raw(f"Enter sends|[{RARE}]")  # the empty composer, or the draft in it
                key, at = RARE[number % len(RARE)], len(chat.raw)  # those before it are kept as a draft
                chat.type(key)
                taken.append(chat.wait_for_raw(key, at) - began)
            finally:
                chat.quit()
        return statistics.median(taken[1:])


def _print(found: dict[str, Any]) -> None:
    rates = f"{found['tokens_per_s']:.1f} of {found['bench_tokens_per_s']:.1f} tokens/s"
    print(f"{found['model']}: {rates}, {shown(found['speed'])}")
    if keys := found["keys"]:
        print(
            f"a key: median {found['key_median_ms']:.0f} ms, 95 of 100 within {found['key_p95_ms']:.0f} ms, "
            f"{keys} keys; claim: within {CLAIMS['key_p95_ms']:.0f} ms"
        )
    print(f"start: {found['start_s']:.2f} s; claim: at most {CLAIMS['start_s']} s")
    if long := found["long"]:
        memory = f"{long['memory_before'] / 1e6:.0f} MB, then {long['memory_after'] / 1e6:.0f} MB"
        print(f"a reply of {long['tokens']:,} tokens: {memory}")
        first, last = long["first_quarter_s"] * 1e3, long["last_quarter_s"] * 1e3
        print(f"processor time for a token of it: {first:.2f} ms at first, {last:.2f} ms at last")


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=3)
    found.add_argument("--tokens", type=int, default=400, help="of each reply")
    found.add_argument("--conversations", type=int, default=10_000)
    found.add_argument("--long", type=int, default=0, help="tokens of one long reply; takes minutes")
    return found.parse_args()


if __name__ == "__main__":
    main()
