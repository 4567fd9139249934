"""`localai chat`: the terminal chat."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from localai.cli import options
from localai.errors import UsageError


def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model's name or a GGUF file. Default: the newest reasoning model.", show_default=False
        ),
    ] = None,
    system: Annotated[str, typer.Option(help="A system prompt for new conversations.")] = "",
    context: options.Context = None,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = None,
) -> None:
    """Open the terminal chat."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the chat needs a terminal", 'Ask without one: localai ask "What is 2 + 2?"')
