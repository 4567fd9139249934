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
import codecs
import fcntl
import json
import os
import pty
import random
import re
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any, Final

import psutil
import pyte
from common import compared, parser, print_json, resolve, shown

from localai.history import History

LOCALAI: Final = str(Path(sys.executable).with_name("localai"))
ROWS, COLUMNS = 40, 120
QUESTION: Final = "Write a long story about a lighthouse keeper, the sea, and a letter that arrives too late."
RARE: Final = "¤§¶¥£¢"
"""Characters that no reply contains: where one of them comes from the terminal, the key was painted."""
CLAIMS: Final = {"speed": "at least 0.95", "key_p95_ms": 50.0, "start_s": 0.8}
PATIENCE_S: Final = 60.0


class Chat:
    """`localai chat` on a pseudo-terminal; `raw` is all that it has written."""

    def __init__(self, *words: str, home: Path | None = None) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        if home is not None:
            environment["LOCALAI_HOME"] = str(home)
        self.process = subprocess.Popen(
            [LOCALAI, "chat", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self.raw = b""

    def wait(self, wanted: str, since: int = 0) -> float:
        """Read until that was written behind byte `since`; the time. Ends the program if it never comes."""
        end = time.perf_counter() + PATIENCE_S
        while not re.search(wanted.encode(), self.raw[since:]):
            if time.perf_counter() > end or self.process.poll() is not None:
                sys.exit(f"the chat did not show {wanted!r}; the screen:\n" + "\n".join(self.screen()))
            self._read(0.5)
        return time.perf_counter()

    def type(self, text: str) -> float:
        """Press these keys; when."""
        os.write(self.master, text.encode())
        return time.perf_counter()

    def screen(self) -> list[str]:
        """The lines that a user sees now."""
        screen = pyte.Screen(COLUMNS, ROWS)
        stream, decoder = pyte.Stream(screen), codecs.getincrementaldecoder("utf-8")("replace")
        stream.feed(re.sub(r"\x1b\[[<>=?][0-9;]*[a-zA-Z]", "", decoder.decode(self.raw)))
        return list(screen.display)

    def memory(self) -> int:
        """Bytes of the app's process alone."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def close(self) -> None:
        """End it."""
        self.type("\x11")
        end = time.perf_counter() + 20
        while self.process.poll() is None and time.perf_counter() < end:
            self._read(0.1)
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    def _read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self.raw += os.read(self.master, 1 << 16)
            except OSError:
                time.sleep(0.05)


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
        chat.wait("ready")
        before = chat.memory()
        chat.type(QUESTION)
        chat.wait("too late")
        ended, since = re.compile("Cut at the limit|■|▲".encode()), len(chat.raw)
        chat.type("\r")
        chat.wait("tok/s", since)
        source, pressed = random.Random(5), []
        while not ended.search(chat.raw[since:]):
            key, at = source.choice(RARE), len(chat.raw)
            began = chat.type(key)
            pressed.append(chat.wait(key, at) - began)
            pause = time.perf_counter() + source.uniform(0.05, 0.3)
            while time.perf_counter() < pause:
                chat._read(0.02)
        after = chat.memory()
        rates = re.findall(r"([0-9.]+) tok/s", "\n".join(chat.screen()))
        return float(rates[-1]), pressed[:-1], (before, after)
    finally:
        chat.close()


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
        chat.wait("Enter sends")
        chat.close()
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
                chat.wait(f"Enter sends|[{RARE}]")  # the empty composer, or the draft in it
                key, at = RARE[number % len(RARE)], len(chat.raw)  # those before it are kept as a draft
                chat.type(key)
                taken.append(chat.wait(key, at) - began)
            finally:
                chat.close()
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
