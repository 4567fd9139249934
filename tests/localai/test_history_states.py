"""The file of engine states: the same as the cache in memory, encrypted, and never an error."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localai.chat.conversation import Attachment, Conversation, Message
from localai.engine.states import PART_BYTES, State, StateCache
from localai.history import History, Preset, StateStore, database, states

KEY, OTHER_KEY = b"k" * 32, b"o" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "states.sqlite"


@pytest.fixture
def store(path: Path):
    opened = StateStore(KEY, path, limit=1000)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "disk"])
def either(request: pytest.FixtureRequest, path: Path):
    """The cache in memory and the one on the disk: what holds for one holds for the other."""
    if request.param == "memory":
        yield StateCache(1000)
    else:
        opened = StateStore(KEY, path, limit=1000)
        yield opened
        opened.close()


def state(size: int = 100, fingerprint: str = "f", fill: bytes = b"x") -> State:
    return State(fingerprint, [fill * size])


# --------------------------------------------------------------------------------------- as the other cache


def test_what_is_put_is_found(either: StateCache | StateStore) -> None:
    assert either.get("a") is None
    either.put("a", state())
    assert either.get("a") == either.get("a", "f") == state()
    assert either.get("a", "other") is None
    assert either.get("b") is None
    assert either.bytes == 100


def test_one_for_each_model_and_the_last_used_first(either: StateCache | StateStore) -> None:
    either.put("a", state(fingerprint="f"))
    either.put("a", state(fingerprint="g"))
    assert either.get("a") == state(fingerprint="g")
    assert either.get("a", "f") == state(fingerprint="f")
    assert either.get("a") == state(fingerprint="f")
    assert either.bytes == 200


def test_put_again_replaces(either: StateCache | StateStore) -> None:
    either.put("a", state(900))
    either.put("a", state(800, fill=b"y"))
    assert either.get("a") == state(800, fill=b"y")
    assert either.bytes == 800


def test_the_least_recently_used_goes_first(either: StateCache | StateStore) -> None:
    for name in "abc":
        either.put(name, state(300))
    either.get("a")
    either.put("d", state(300))
    assert [either.get(name) is not None for name in "abcd"] == [True, False, True, True]
    either.put("e", state(1000))
    assert [either.get(name) is not None for name in "abcde"] == [False] * 4 + [True]


def test_one_that_is_too_large_is_not_kept(either: StateCache | StateStore) -> None:
    either.put("a", state(500))
    either.put("b", state(1001))
    assert either.get("b") is None
    assert either.get("a") is not None


def test_discard_and_clear(either: StateCache | StateStore) -> None:
    either.put("a", state(fingerprint="f"))
    either.put("a", state(fingerprint="g"))
    either.put("b", state())
    either.discard("a")
    either.discard("nobody")
    assert either.get("a") is None
    assert either.bytes == 100
    either.clear()
    assert either.get("b") is None
    assert either.bytes == 0


# -------------------------------------------------------------------------------------------------- the file


def test_states_survive_a_restart(path: Path) -> None:
    large = State("f", [os.urandom(PART_BYTES * 2 + 7), b"", os.urandom(5)])
    first = StateStore(KEY, path)
    first.put("a", large)
    first.close()
    second = StateStore(KEY, path)
    found = second.get("a")
    assert found is not None
    assert b"".join(found.parts) == b"".join(large.parts)
    assert second.size() == second.bytes == large.size
    second.close()


def test_the_limit_holds_after_a_restart(path: Path) -> None:
    first = StateStore(KEY, path, limit=1000)
    for name in "abc":
        first.put(name, state(300))
    first.close()
    second = StateStore(KEY, path, limit=700)
    assert [second.get(name) is not None for name in "abc"] == [False, True, True]
    second.close()


def test_the_limit_is_a_part_of_the_free_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage(path.parent.parent)
    for free, limit in [(10_000, 1000), (10**12, 2 * 1024**3)]:
        monkeypatch.setattr(states.shutil, "disk_usage", lambda _, free=free: real._replace(free=free))
        opened = StateStore(KEY, path)
        assert opened.limit == limit
        opened.close()


def test_it_lies_beside_the_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAI_HOME", str(tmp_path))
    assert states.states_path() == tmp_path / "data" / "states.sqlite"


def test_what_goes_gives_its_space_back(path: Path) -> None:
    opened = StateStore(KEY, path, limit=10 * PART_BYTES)
    opened.put("a", state(5 * PART_BYTES))
    assert path.stat().st_size > 5 * PART_BYTES
    opened.clear()
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < PART_BYTES
    opened.close()


def test_only_the_user_can_read_it(store: StateStore, path: Path) -> None:
    store.put("a", state())
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_from_any_thread_and_two_programs(path: Path) -> None:
    one, two = (StateStore(KEY, path, limit=10**6) for _ in range(2))

    def work(opened: StateStore, name: str) -> None:
        for i in range(20):
            opened.put(f"{name}{i}", state(fill=name.encode()))
            opened.get(f"{name}{i}")

    threads = [
        threading.Thread(target=work, args=(opened, name))
        for opened, name in [(one, "a"), (one, "b"), (two, "c")]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.size() == two.size() == 60 * 100
    one.close()
    two.close()


# --------------------------------------------------------------------------------------------- never an error


def test_another_key_makes_it_anew(path: Path) -> None:
    first = StateStore(KEY, path)
    first.put("a", state())
    first.close()
    second = StateStore(OTHER_KEY, path)
    assert second.get("a") is None
    second.put("a", state())
    assert second.get("a") == state()
    second.close()
    assert database.opens(path, OTHER_KEY)


def foreign(path: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE recipes (name TEXT)")
    raw.close()


def newer(path: Path) -> None:
    opened = StateStore(KEY, path)
    opened._do("PRAGMA user_version = 99")
    opened.close()


@pytest.mark.parametrize(
    "spoil",
    [foreign, newer, lambda path: path.write_bytes(b"a letter " * 999)],
    ids=["foreign", "newer", "text"],
)
@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "plain"])
def test_a_bad_file_is_made_anew(path: Path, spoil, key: bytes | None) -> None:
    path.parent.mkdir()
    spoil(path)
    opened = StateStore(key, path)
    opened.put("a", state())
    assert opened.get("a") == state()
    opened.close()


def test_damage_that_is_found_later(path: Path) -> None:
    first = StateStore(KEY, path)
    first.put("a", state(20 * 4096))
    first.close()
    whole = bytearray(path.read_bytes())
    whole[-4096 * 8] ^= 1
    path.write_bytes(whole)
    second = StateStore(KEY, path)
    assert second.get("a") is None
    assert second.size() == 0
    second.put("a", state())
    assert second.get("a") == state()
    second.close()


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    opened = StateStore(KEY, blocked / "states.sqlite")
    opened.put("a", state())
    assert opened.get("a") is None
    assert opened.size() == 0
    opened.discard("a")
    opened.clear()
    opened.close()


def test_a_full_disk_keeps_what_there_is(store: StateStore) -> None:
    store.limit = 10**7
    store.put("a", state())
    pages = store._rows("PRAGMA page_count")[0][0]
    store._do(f"PRAGMA max_page_count = {pages + 20}")
    store.put("b", state(10**6))
    assert store.get("b") is None
    assert store.get("a") == state()
    assert store.size() == 100


def test_a_closed_store_keeps_nothing(store: StateStore) -> None:
    store.close()
    store.put("a", state())
    assert store.get("a") is None


WRITER = """
import sys
from pathlib import Path
from localai.engine.states import State
from localai.history import StateStore
store = StateStore(b"k" * 32, Path(sys.argv[1]), limit=10**8)
number = 0
while True:
    store.put(str(number % 5), State("f", [str(number % 10).encode() * 3_000_000]))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("wanted", [1, 4, 7])
def test_a_kill_leaves_whole_states_only(path: Path, wanted: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    with writer:
        assert writer.stdout is not None
        for _ in range(wanted):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    opened = StateStore(KEY, path, limit=10**8)
    found = [one for name in "01234" if (one := opened.get(name))]
    assert len(found) >= min(wanted, 5) - 1
    for one in found:
        whole = b"".join(one.parts)
        assert whole == whole[:1] * 3_000_000
    assert opened.size() == 3_000_000 * len(found)
    opened.close()


# ------------------------------------------------------------------------------------------------ the canary

CANARY = "xylophonecanary"
CANARY_WRITER = f"""
import os, signal, sys
from pathlib import Path
from localai.chat.conversation import Attachment, Conversation, Message
from localai.engine.states import State
from localai.history import History, Preset, StateStore
folder, secret = Path(sys.argv[1]), "{CANARY}"
history = History(folder / "conversations.sqlite", b"k" * 32)
states = StateStore(b"k" * 32, folder / "states.sqlite")
conversation = Conversation(title=secret, system=secret, model=secret, settings={{secret: secret}})
for i in range(30):
    message = Message(
        parent=conversation.head, role="user", content=f"{{secret}} 长江大桥 " * 200, thinking=secret * 50,
        attachments=(Attachment(name=secret, text=secret * 300),),
    )
    conversation.append(message)
    if i == 0:
        history.save(conversation)
    history.put(conversation.id, message)
history.put_draft("", secret)
history.put_draft(conversation.id, secret)
history.save_preset(Preset(secret, secret, {{secret: secret}}))
history.set_setting(secret, secret)
assert history.search(secret) and history.search("长江 " + secret)
states.put(secret, State(secret, [secret.encode() * 100_000]))
assert states.get(secret)
if sys.argv[2] == "close":
    history.delete(conversation.id)
    states.close()
    history.close()
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_secret_is_in_no_file(tmp_path: Path, end: str) -> None:
    """Neither in the data folder nor in that of temporary files, with logs and what a kill leaves."""
    data, temporary = tmp_path / "data", tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | dict.fromkeys(["TMPDIR", "SQLITE_TMPDIR"], str(temporary))
    done = subprocess.run([sys.executable, "-c", CANARY_WRITER, data, end], env=environment, check=False)
    assert done.returncode == (0 if end == "close" else -signal.SIGKILL)
    written = [*data.iterdir()]
    assert {"conversations.sqlite", "states.sqlite"} <= {file.name for file in written}
    for file in [*written, *temporary.iterdir()]:
        content = file.read_bytes().lower()
        for form in (CANARY.encode(), CANARY[:8].encode(), CANARY.encode("utf-16-le"), "长江大".encode()):
            assert form not in content, file.name


def test_the_canary_would_be_found(tmp_path: Path) -> None:
    """Without encryption the secret stands in the file: the test above looks for the right thing."""
    conversation = Conversation()
    file = Attachment(name="n", text=CANARY)
    conversation.append(Message(parent=None, role="user", content="长江大桥", attachments=(file,)))
    with History(tmp_path / "h.sqlite") as history:
        history.save(conversation)
        history.save_preset(Preset(CANARY))
    content = (tmp_path / "h.sqlite").read_bytes()
    assert CANARY.encode() in content
    assert "长江大".encode() in content
