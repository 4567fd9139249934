"""The clipboard: what is copied, and the tools of the system that take it.

A terminal that knows OSC 52 takes a copy from the escape sequence that the application writes, also over ssh.
Others need the tool of their desktop, which only helps where the program and the desktop are on one machine.
tmux, as it comes, ignores that sequence from what runs in it, but hands on what it is given as a buffer.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from localai.chat.clean import clean, clean_line
from localai.chat.conversation import Conversation, Message
from localai.processes import environment
from tui.markdown import parser

if TYPE_CHECKING:
    from markdown_it.token import Token

PATIENCE_S: Final = 2.0
"""How long a tool may take to take the text."""

_TOOLS: Final = (
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
    ("", ("pbcopy",)),
    ("", ("clip.exe",)),
    ("TMUX", ("tmux", "load-buffer", "-w", "-")),
)
"""The variable without which a tool has nothing to talk to, and the command."""


def tool(environment: Mapping[str, str]) -> Sequence[str]:
    """The command that takes a text from its standard input, over ssh only tmux's; empty if there is none."""
    remote = environment.get("SSH_CONNECTION") or environment.get("SSH_TTY")
    for variable, command in _TOOLS:
        if remote and variable != "TMUX":
            continue
        if (not variable or environment.get(variable)) and shutil.which(
            command[0], path=environment.get("PATH")
        ):
            return command
    return ()


def hand_over(text: str, command: Sequence[str]) -> bool:
    """Give `text` to the command; whether it took it."""
    try:
        done = subprocess.run(
            command,
            input=text.encode("utf-16-le" if command[0] == "clip.exe" else "utf-8", "replace"),
            stdout=subprocess.DEVNULL,  # a tool that stays to serve the text would keep a pipe open
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,
            env=environment(),
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def code_blocks(text: str) -> list[str]:
    """The blocks of code in Markdown, in their order."""

    def is_code(token: Token) -> bool:
        return token.type in ("fence", "code_block")

    return [token.content for token in parser().parse(clean(text)) if is_code(token)]


def as_markdown(conversation: Conversation) -> str:
    """The shown branch as Markdown, without the thinking."""
    parts = [f"# {clean_line(conversation.title)}"] if conversation.title else []
    for message in conversation.branch():
        parts += _markdown(message)
    return "\n\n".join(parts) + "\n"


def _markdown(message: Message) -> list[str]:
    who = "You" if message.role == "user" else clean_line(message.model) or "Reply"
    files = [f"*{clean_line(file.name)} is attached.*" for file in message.attachments]
    return [f"## {who}", *files, clean(message.content).strip()]
