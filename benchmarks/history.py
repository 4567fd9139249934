"""The encrypted history with 10,000 conversations and 200,000 messages, and 100 kills while it is written to.

Made through the program's own store, in a folder that is removed at the end. The claims: any search within
50 ms, of words, beginnings, phrases and Chinese; 100 times kill -9 at a random moment, and every message that
was acknowledged is there, in a file that passes its check. Each time is also given as a multiple of what the
same takes in an unencrypted copy, in turns: that is the price of the encryption.

Usage: python benchmarks/history.py [--conversations 10000] [--messages 20] [--rounds 7] [--kills 100]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from common import WORDS

from localai.chat.conversation import Conversation, Message
from localai.history import History

SEARCH_LIMIT_S: Final = 0.05
SEARCHES: Final = {
    "a rare word": "xylophone",
    "a common word": "letter",
    "three words": "river garden silver",
    "a beginning": "xylo",
    "a phrase": '"the old lighthouse keeper"',
    "Chinese": "长江大桥",
    "nothing to be found": "qqqqqqq",
}
CHINESE: Final = "昨天我们在长江大桥上散步看见了很多船只和灯光"
WRITER: Final = """
import sys
from pathlib import Path
from localai.chat.conversation import Conversation, Message
from localai.history import History
history = History(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]))
conversation = Conversation()
conversation.append(Message(parent=None, role="user", content="first"))
history.save(conversation)
print(conversation.id, conversation.head, flush=True)
while True:
    role = "user" if len(conversation.messages) % 2 == 0 else "assistant"
    message = Message(parent=conversation.head, role=role, content="some words of a reply " * 60)
    conversation.append(message)
    history.put(conversation.id, message)
    print(conversation.id, message.id, flush=True)
"""


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        path, key = Path(folder) / "history.sqlite", os.urandom(32)
        made_s = fill(path, key, arguments.conversations, arguments.messages)
        plain = Path(folder) / "plain.sqlite"
        fill(plain, None, arguments.conversations, arguments.messages)
        found = {
            "conversations": arguments.conversations,
            "messages": arguments.conversations * arguments.messages,
            "bytes": path.stat().st_size,
            "stored_per_s": arguments.conversations * arguments.messages / made_s,
            "times": times(path, key, plain, arguments.rounds),
            "kills": kills(Path(folder) / "killed.sqlite", key, arguments.kills),
        }
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)


def fill(path: Path, key: bytes | None, conversations: int, messages: int) -> float:
    """Store so many conversations of so many messages; the seconds."""
    source = random.Random(1)
    started = time.perf_counter()
    with History(path, key) as history:
        for number in range(conversations):
            history.save(_conversation(source, number, messages))
    return time.perf_counter() - started


def _conversation(source: random.Random, number: int, messages: int) -> Conversation:
    conversation = Conversation(created=float(number))
    for index in range(messages):
        words = source.choices(WORDS, k=source.randrange(10, 90))
        if number % 500 == 7 and index == 3:
            words.insert(5, "xylophone")
        if number % 200 == 9 and index == 5:
            words.insert(5, "the old lighthouse keeper")
        if number % 300 == 11 and index == 2:
            words.insert(3, CHINESE)
        role = "user" if index % 2 == 0 else "assistant"
        message = Message(
            parent=conversation.head, role=role, content=" ".join(words), created=number + index / 100
        )
        conversation.append(message)
    return conversation


def times(path: Path, key: bytes, plain: Path, rounds: int) -> dict[str, Any]:
    """Median seconds of each task with encryption and without, in turns."""
    with History(path, key) as ours, History(plain) as theirs:
        some = [summary.id for summary in ours.summaries()[:rounds]]
        other = [summary.id for summary in theirs.summaries()[:rounds]]
        tasks: dict[str, tuple[Callable[[int], object], Callable[[int], object]]] = {
            f"search for {name}": (
                lambda _, query=query: ours.search(query),  # type: ignore[misc]
                lambda _, query=query: theirs.search(query),  # type: ignore[misc]
            )
            for name, query in SEARCHES.items()
        }
        tasks["open one"] = (lambda i: ours.load(some[i]), lambda i: theirs.load(other[i]))
        tasks["list all"] = (lambda _: ours.summaries(), lambda _: theirs.summaries())
        found = {name: _in_turns(*pair, rounds) for name, pair in tasks.items()}
    found["open the file"] = _in_turns(
        lambda _: History(path, key).close(), lambda _: History(plain).close(), rounds
    )
    return found


def _in_turns(ours: Callable[[int], object], theirs: Callable[[int], object], rounds: int) -> dict[str, Any]:
    pairs = [(_seconds(ours, number), _seconds(theirs, number)) for number in range(rounds)]
    encrypted = [one for one, _ in pairs]
    return {
        "seconds": statistics.median(encrypted),
        "first_s": encrypted[0],
        "most_s": max(encrypted),
        "ratio_to_plain": statistics.median(a / b for a, b in pairs),
    }


def _seconds(task: Callable[[int], object], number: int) -> float:
    started = time.perf_counter()
    task(number)
    return time.perf_counter() - started


def kills(path: Path, key: bytes, count: int) -> dict[str, int]:
    """Kill a process that writes, so many times; what was acknowledged and is not there."""
    source = random.Random(3)
    acknowledged: set[tuple[str, str]] = set()
    damaged = 0
    for _ in range(count):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), key.hex()], stdout=subprocess.PIPE, text=True
        )
        with writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(source.randrange(1, 40))]
            time.sleep(source.uniform(0, 0.01))
            writer.send_signal(signal.SIGKILL)
            lines += list(writer.stdout)
        acknowledged |= {tuple(line.split()) for line in lines if line.endswith("\n")}  # type: ignore[misc]
        with History(path, key) as history:
            damaged += history.check() != "ok"
    with History(path, key) as history:
        stored = {(s.id, m) for s in history.summaries() for m in history.load(s.id).messages}
    return {
        "kills": count,
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - stored),
        "damaged": damaged,
    }


def _print(found: dict[str, Any]) -> None:
    print(
        f"{found['messages']:,} messages in {found['conversations']:,} conversations, "
        f"{found['bytes'] / 1e6:,.0f} MB, {found['stored_per_s']:,.0f} messages stored a second"
    )
    for name, task in found["times"].items():
        limit = f"; claim: at most {SEARCH_LIMIT_S * 1e3:.0f} ms" if name.startswith("search") else ""
        print(
            f"  {name:<32}{task['seconds'] * 1e3:8.1f} ms (at most {task['most_s'] * 1e3:.1f}), "
            f"{task['ratio_to_plain']:.2f} of unencrypted{limit}"
        )
    done = found["kills"]
    print(
        f"{done['kills']} kills: {done['lost']} of {done['acknowledged']:,} acknowledged messages lost, "
        f"the file damaged {done['damaged']} times; claim: 0 and 0"
    )


def _arguments() -> argparse.Namespace:
    found = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--conversations", type=int, default=10_000)
    found.add_argument("--messages", type=int, default=20, help="of each conversation")
    found.add_argument("--rounds", type=int, default=7)
    found.add_argument("--kills", type=int, default=100)
    found.add_argument("--json", action="store_true")
    return found.parse_args()


if __name__ == "__main__":
    main()
