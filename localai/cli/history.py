"""`localai history`: find, read, export, import, delete and protect the stored conversations."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from localai.cli import history_protection, options, output
from localai.errors import HistoryError, HistoryLocked, UsageError

if TYPE_CHECKING:
    from localai.chat.conversation import Conversation
    from localai.history import History

app = typer.Typer(
    help="Find, read, export, import, delete and protect your conversations.", no_args_is_help=True
)

SHORTEST = 8
"""Of an identifier, at least so many characters are shown."""
Which = Annotated[
    str, typer.Argument(metavar="ID", help="A conversation's ID or its beginning.", show_default=False)
]


def _open() -> History:
    """The stored conversations; where nothing was ever stored, nothing is made either."""
    from localai import paths
    from localai.cli.unlock import open_history
    from localai.history import History, key

    if key.protection() is None and not paths.history_path().exists():
        return History(memory=True)
    return open_history()


def _check_shown(json: bool) -> None:
    """What a program reads of conversations, it can also write: PolicyError where no file of them may be."""
    from localai import policy

    if json or not sys.stdout.isatty():
        policy.current().check(
            "forbid.export", "conversations cannot be handed to programs or files", "A terminal shows them"
        )


@app.command("list")
def list_conversations(json: options.Json = False) -> None:
    """Show the stored conversations, the latest first."""
    from localai.history.exchange import one_line, when

    _check_shown(json)
    with _open() as history:
        found = history.summaries()
    if json:
        output.print_json({"conversations": found})
    elif not found:
        print("No conversation is stored.")
    else:
        length = _length([item.id for item in found])
        rows = [
            [
                item.id[:length],
                when(item.updated),
                str(item.message_count),
                ("(pinned) " if item.pinned else "") + one_line(item.title),
            ]
            for item in found
        ]
        output.print_table(["ID", "CHANGED", "MESSAGES", "TITLE"], rows)


def _length(identifiers: list[str]) -> int:
    """How many characters tell them apart."""
    return next(
        n for n in range(SHORTEST, 65) if n == 64 or len({i[:n] for i in identifiers}) == len(identifiers)
    )


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="All of them must be there.", show_default=False)],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Show so many at most.")] = 20,
    json: options.Json = False,
) -> None:
    """Find messages by their words; the last word may be the beginning of one, quoted words are a phrase."""
    from localai.history.exchange import one_line, when

    _check_shown(json)
    # The shell took the quotes of a phrase away.
    query = " ".join(f'"{word}"' if " " in word and '"' not in word else word for word in words)
    with _open() as history:
        hits = history.search(query, limit)
    if json:
        output.print_json({"hits": hits})
        return
    if not hits:
        print("Nothing was found.")
    length = _length([*{hit.conversation for hit in hits}])
    for hit in hits:
        who = "you" if hit.role == "user" else "reply"
        print(f"{hit.conversation[:length]}  {when(hit.created)}  {who}  {one_line(hit.title)}")
        print(f"    {one_line(hit.before + hit.match + hit.after)}")


@app.command()
def show(
    which: Which,
    thinking: Annotated[bool, typer.Option("--thinking", help="With what the model thought.")] = False,
    json: options.Json = False,
) -> None:
    """Print a conversation: of its branches, the one that is shown in the chat."""
    from localai.history.exchange import as_data

    _check_shown(json)
    conversation = _load(which)
    if json:
        output.print_json(as_data(conversation))
        return
    print(output.one_line(conversation.title))
    for message in conversation.branch():
        who = "You" if message.role == "user" else output.one_line(message.model) or "Reply"
        print(f"\n{who}:")
        for file in message.attachments:
            print(f"[file: {output.one_line(file.name)}, {len(file.text):,} characters]")
        if thinking and message.thinking.strip():
            print(f"<think>\n{output.clean(message.thinking).strip()}\n</think>\n")
        print(output.clean(message.content).strip())
    left = len(conversation.messages) - len(conversation.branch())
    if left:
        output.note(f"{left} messages of other branches are not shown; `localai history export` has them")


def _load(which: str) -> Conversation:
    with _open() as history:
        return history.load(_find(history, which))


def _find(history: History, which: str) -> str:
    """The ID that begins so. Raises HistoryError if there is none, UsageError for several."""
    found = [item.id for item in history.summaries() if which and item.id.startswith(which)]
    if which in found:
        return which
    if len(found) > 1:
        raise UsageError(f'{len(found)} conversations begin with "{which}"', "Give more of the ID")
    if not found:
        raise HistoryError(f'there is no conversation "{which}"', "`localai history list` shows them")
    return found[0]


@app.command()
def export(
    which: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="A conversation's ID or its beginning.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All conversations.")] = False,
    form: Annotated[
        Literal["markdown", "json", "html"],
        typer.Option("--format", help="json can be imported again; html opens in any browser."),
    ] = "markdown",
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to a file.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write conversations with all branches, thinking and attachments where others can read them."""
    from localai.history import exchange
    from localai.history.export import check_allowed, render

    check_allowed()
    if everything == (which is not None):
        raise UsageError("give the ID of a conversation, or --all", "`localai history list` shows them")
    with _open() as history:
        names = [item.id for item in history.summaries()] if everything else [_find(history, which or "")]
        conversations = [history.load(name) for name in names]
    text = render(form, conversations)
    if to is None:
        sys.stdout.write(text)
        return
    exchange.write(to, text, force=force)
    output.note(f"{_conversations(len(names))} written to {to}, which is not encrypted")


def _conversations(number: int) -> str:
    return "1 conversation" if number == 1 else f"{number:,} conversations"


@app.command("import")
def import_conversations(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Our JSON, or conversations.json of ChatGPT or DeepSeek.", show_default=False
        ),
    ],
    json: options.Json = False,
) -> None:
    """Read conversations from a file; what is stored already stays as it is."""
    from localai.cli.unlock import open_history
    from localai.history.imports import import_file

    with open_history() as history:
        done = import_file(history, path)
    if json:
        output.print_json(done)
        return
    print(f"Imported {_conversations(len(done.imported))} from {done.source}")
    if done.present:
        print(
            f"{_conversations(done.present)} were here already" if done.present > 1 else "1 was here already"
        )
    if done.outlived:
        print(f"{_conversations(done.outlived)} left out: older than your organization lets them be kept")
    if done.empty:
        print(f"{_conversations(done.empty)} without a message left out")


@app.command()
def delete(
    which: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="IDs or their beginnings.", show_default=False),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            min=0,
            max=100_000,
            metavar="DAYS",
            help="All not changed for so long, but the pinned.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: options.Json = False,
) -> None:
    """Delete conversations for good."""
    if bool(which) == (older_than is not None):
        raise UsageError(
            "give IDs of conversations, or --older-than DAYS", "`localai history list` shows them"
        )
    from localai.history import states

    now = time.time()
    with _open() as history:
        if older_than is not None:
            names = history.expired(older_than, now)
        else:
            names = list(dict.fromkeys(_find(history, name) for name in which or []))
        if names and not yes:
            _confirm(f"Delete {_conversations(len(names))} for good?")
        for name in names:
            history.delete(name)
        if not history.in_memory:
            states.forget(history.key, names)
    if json:
        output.print_json({"deleted": names})
    else:
        print(f"Deleted {_conversations(len(names))}")


def _confirm(question: str) -> None:
    """Ask once; raises UsageError where nobody can answer, and ends the program for a no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("there is no terminal to ask on", "Add --yes to do it without being asked")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


# ----------------------------------------------------------------------------------------------- status


@app.command()
def status(
    check: Annotated[
        bool, typer.Option("--check", help="Read all of the file and see that it is sound.")
    ] = False,
    clear_states: Annotated[
        bool, typer.Option("--clear-states", help="Empty what the engine kept to open conversations quickly.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show where the conversations are, how they are protected, and what they take."""
    from localai import paths
    from localai.history import key
    from localai.history.states import states_path

    chosen = key.protection()
    facts: dict[str, Any] = {
        "path": str(paths.history_path()),
        "protection": None if chosen is None else list(chosen.ways) or ["plain"],
        "locked": False,
        "conversations": 0,
        "messages": 0,
        "bytes": 0,
        "states_bytes": 0,
        "sound": None,
    }
    try:
        with _open() as history:
            facts["conversations"], facts["messages"] = history.count()
            if clear_states:
                _clear_states(history)
            if check:
                facts["sound"] = history.check()
    except HistoryLocked:
        if check or clear_states:
            raise
        facts |= {"locked": True, "conversations": None, "messages": None}
    facts |= {"bytes": _bytes(paths.history_path()), "states_bytes": _bytes(states_path())}
    output.print_json(facts) if json else _print_status(facts)
    if facts["sound"] not in (None, "ok"):
        raise typer.Exit(1)


def _clear_states(history: History) -> None:
    from localai.history.states import StateStore, states_path

    if not history.in_memory and states_path().exists():
        states = StateStore(history.key)
        states.clear()
        states.close()


def _bytes(path: Path) -> int:
    """What the file takes on the disk, its log too."""
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))]
    return sum(file.stat().st_size for file in files if file.exists())


_WORDS = {"keyring": "a key in the keyring", "passphrase": "a passphrase", "plain": "not encrypted"}


def _print_status(facts: dict[str, Any]) -> None:
    ways = facts["protection"]
    undecided = "nothing yet: the chat asks at its next start" if facts["bytes"] else "nothing is stored yet"
    protected = " and ".join(_WORDS[way] for way in ways) if ways else undecided
    rows = {
        "file": facts["path"],
        "protected by": protected if ways != ["plain"] else "nothing: it is not encrypted",
        "conversations": "locked" if facts["locked"] else f"{facts['conversations']:,}",
        "messages": "locked" if facts["locked"] else f"{facts['messages']:,}",
        "size": output.size(facts["bytes"]),
        "kept states": output.size(facts["states_bytes"]),
        "sound": {None: "", "ok": "yes"}.get(facts["sound"], facts["sound"]),
    }
    for label, value in rows.items():
        if value:
            print(f"{label:<16}{output.one_line(value)}")


app.command("lock")(history_protection.lock)
app.command("rekey")(history_protection.rekey)
