"""kill -9 at any moment: every message that was acknowledged is there, and the file is whole."""

from __future__ import annotations

import random
import signal
import sqlite3
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

history = History(Path(sys.argv[1]))
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


@pytest.mark.parametrize("seed", range(5))
def test_every_acknowledged_message_survives(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "h.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, "c"], stdout=subprocess.PIPE, text=True)
    with writer:
        assert writer.stdout is not None
        wanted = random.Random(seed).randrange(1, 200)
        acknowledged = [writer.stdout.readline().strip() for _ in range(wanted)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
    with History(path) as history:
        conversation = history.load("c")
        assert set(acknowledged) <= set(conversation.messages)
        assert len(conversation.branch()) == len(conversation.messages)
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert check.execute("PRAGMA foreign_key_check").fetchall() == []
    check.close()
