"""kill -9 at any moment: every message that was acknowledged is there, and the file is whole."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localai.history.store import History

WRITER = """
import sys
from pathlib import Path
from localai.chat.conversation import Conversation, Message
from localai.history.store import History

history = History(Path(sys.argv[1]), bytes.fromhex(sys.argv[3]) or None)
conversation = Conversation(id=sys.argv[2])
conversation.append(Message(parent=None, role="user", content="first"))
history.save(conversation)
print(conversation.head, flush=True)
while True:
    role = "user" if len(conversation.messages) % 2 == 0 else "assistant"
    message = Message(parent=conversation.head, role=role, content="text " * 300)
    conversation.append(message)
    history.put(conversation.id, message)
    print(message.id, flush=True)
"""


@pytest.mark.parametrize("key", [b"k" * 32, None], ids=["encrypted", "plain"])
@pytest.mark.parametrize("seed", range(4))
def test_every_acknowledged_message_survives(tmp_path: Path, seed: int, key: bytes | None) -> None:
    path = tmp_path / "h.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path, "c", (key or b"").hex()], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        wanted = random.Random(seed).randrange(1, 200)
        acknowledged = [writer.stdout.readline().strip() for _ in range(wanted)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
    with History(path, key) as history:
        conversation = history.load("c")
        assert set(acknowledged) <= set(conversation.messages)
        assert len(conversation.branch()) == len(conversation.messages)
        assert history.check() == "ok"
        found = {hit.message for hit in history.search("text", limit=1000)}
        assert found == {m.id for m in conversation.branch()[1:]}


@pytest.mark.parametrize("seed", range(3))
def test_two_writers_of_which_one_is_killed(tmp_path: Path, seed: int) -> None:
    """Both begin with no file at all."""
    path, key = tmp_path / "h.sqlite", b"k" * 32
    command = [sys.executable, "-c", WRITER, path]
    first = subprocess.Popen([*command, "a", key.hex()], stdout=subprocess.PIPE, text=True)
    second = subprocess.Popen([*command, "b", key.hex()], stdout=subprocess.PIPE, text=True)
    with first, second:
        acknowledged: dict[str, set[str]] = {"a": set(), "b": set()}
        for name, writer, count in [("a", first, 20 + seed * 7), ("b", second, 30)]:
            assert writer.stdout is not None
            acknowledged[name] = {writer.stdout.readline().strip() for _ in range(count)}
            writer.send_signal(signal.SIGKILL)
    with History(path, key) as history:
        assert history.check() == "ok"
        for name, ids in acknowledged.items():
            assert ids <= set(history.load(name).messages)
