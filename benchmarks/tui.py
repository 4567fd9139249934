"""The chat on a real pseudo-terminal: what it costs the model, and how soon it answers a key.

- tokens/s of a reply in the chat, as its status line says, as a ratio of `localai bench` with as many tokens,
  in turns. The claim: at least 0.95.
- from a key to its character on the terminal while a reply streams: the claim is a 95th percentile of 50 ms.
- from the start of `localai chat` to the first key on the screen with 10,000 stored conversations: 0.8 s.
- memory of the app's process before and after the replies.

Usage: python benchmarks/tui.py [MODEL] [--rounds 3] [--tokens 400] [--conversations 10000] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from common import compared, parser, print_json, resolve, shown
from terminal import Terminal

from localai.history import History

LOCALAI: Final = str(Path(sys.executable).with_name("localai"))
SIZE: Final = (120, 40)
QUESTION: Final = "Write a long story about a lighthouse keeper, the sea, and a letter that arrives too late."
RARE: Final = "¤§¶¥£¢"
"""Characters that no reply contains: where one of them comes from the terminal, the key was painted."""
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
    model = str(resolve(arguments.model).path)
    ours, theirs, keys, memory = [], [], [], []
    for number in range(arguments.rounds):
        if number % 2:
            theirs.append(_bench(model, arguments.tokens))
        rate, pressed, grown = reply(model, arguments.tokens)
        ours.append(rate)
        keys += pressed
        memory.append(grown)
        if not number % 2:
            theirs.append(_bench(model, arguments.tokens))
    found = {
        "model": arguments.model,
        "tokens_per_s": statistics.median(ours),
        "bench_tokens_per_s": statistics.median(theirs),
        "speed": compared(ours, theirs, str(CLAIMS["speed"])),
        "keys": len(keys),
        "key_median_ms": statistics.median(keys) * 1e3 if keys else None,
        "key_p95_ms": sorted(keys)[int(len(keys) * 0.95)] * 1e3 if keys else None,
        "start_s": start_s(model, arguments.conversations, arguments.rounds),
        "memory_before": max(before for before, _ in memory),
        "memory_after": max(after for _, after in memory),
    }
    if arguments.json:
        print_json(found)
    else:
        _print(found)


def reply(model: str, tokens: int) -> tuple[float, list[float], tuple[int, int]]:
    """(tokens/s of a reply, seconds from each key to its character, memory before and after)."""
    limit = ["--max-tokens", str(tokens), "--temperature", "0", "--no-speculate", "--incognito"]
    chat = Chat(model, *limit)
    try:
        chat.wait_for("ready")
        before = chat.memory()
        chat.type(QUESTION)
        chat.wait_for("too late")
        ended, since = re.compile("Cut at the limit|■|▲".encode()), len(chat.raw)
        chat.type("\r")
        chat.wait_for("tok/s")
        source, pressed = random.Random(5), []
        while not ended.search(chat.raw[since:]):
            key, at = source.choice(RARE), len(chat.raw)
            began = chat.type(key)
            pressed.append(chat.wait_for_raw(key, at) - began)
            pause = time.perf_counter() + source.uniform(0.05, 0.3)
            while time.perf_counter() < pause:
                chat.read(0.02)
        after = chat.memory()
        rates = re.findall(r"([0-9.]+) tok/s", "\n".join(chat.screen))
        return float(rates[-1]), pressed[:-1], (before, after)
    finally:
        chat.quit()


def _bench(model: str, tokens: int) -> float:
    words = [LOCALAI, "bench", model, "--prompt", "0", "--generate", str(tokens), "--repetitions", "1"]
    done = subprocess.run([*words, "--json"], check=True, capture_output=True)
    return float(json.loads(done.stdout)["tests"][0]["tokens_per_s"])


def start_s(model: str, conversations: int, rounds: int) -> float:
    """Median seconds from the start of the process to the first key on the screen."""
    from history import fill

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        chat = Chat(model, "--plain-history", home=home)  # makes the file and its protection
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
            chat = Chat(model, "--plain-history", home=home)
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
    print(f"memory: {found['memory_before'] / 1e6:.0f} MB, then {found['memory_after'] / 1e6:.0f} MB")


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=3)
    found.add_argument("--tokens", type=int, default=400, help="of each reply")
    found.add_argument("--conversations", type=int, default=10_000)
    return found.parse_args()


if __name__ == "__main__":
    main()
