"""What `localai chat` asks on a screen on the first run: a model, and how what one writes is protected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from localai.cli import unlock
from localai.errors import LocalAIError

if TYPE_CHECKING:
    from models.machine import Machine
    from models.recommend import Recommendation
    from tui.model_entry import ModelEntry
    from tui.screens.first_run import Begun, Questions
    from tui.shelf import StoreShelf
    from tui.widgets.protection_question import Choice

STARTER = "smollm2:135m"


def ask(*, model: bool, protection: bool, starter: bool) -> Begun | None:
    """Ask what is open; None if nothing is. Ends the program if the user does.

    `model`, `protection`: whether it is open. `starter`: offer the starter model first.
    """
    if not (model or protection):
        return None
    from tui.first_run import FirstRunApp, run_first

    begun = run_first(FirstRunApp(questions(model=model, protection=protection, starter=starter), protect))
    if isinstance(begun, int):
        raise typer.Exit(begun)
    return begun


def protect(choice: Choice, passphrase: str) -> bytes | None:
    """Do with the conversations what was chosen: their key, if they are encrypted. Raises HistoryError."""
    from localai.history import key

    if choice == "memory":
        return None
    return key.create(() if choice == "plain" else (choice,), passphrase or None)


def questions(*, model: bool, protection: bool, starter: bool) -> Questions:
    """What is to be asked, as `ask` takes it."""
    from localai.history import key
    from models.store import Store
    from tui.screens.first_run import Questions
    from tui.shelf import StoreShelf

    shelf = StoreShelf(Store())
    entries = _to_be_had(shelf) if model else []
    return Questions(
        models=entries,
        fits={entry.name: shelf.fit(entry, 0) for entry in entries},
        recommended=_recommended(starter) if model else None,
        protection=protection,
        keyring_problem=key.keyring_problem() if protection else "",
        least_letters=unlock.LEAST_LETTERS,
    )


def _to_be_had(shelf: StoreShelf) -> list[ModelEntry]:
    """The models of the catalogue; of those that an interrupted fetch has begun with, how far it came."""
    import msgspec

    from models import catalog
    from tui.model_entry import of_wanted

    begun = {one.name: one.arrived for one in shelf.all() if one.arrived and not one.from_source}
    wanted = (of_wanted(catalog.Wanted(entry, entry.type, entry.name)) for entry in catalog.entries())
    return [msgspec.structs.replace(one, arrived=begun.get(one.name, 0)) for one in wanted]


def _recommended(starter: bool) -> Recommendation | None:
    import asyncio

    from models import catalog
    from models.recommend import Recommendation, recommend

    if starter:
        return Recommendation(STARTER, "It is small, and the Python package index has it.")
    return recommend(catalog.entries(), asyncio.run(machine()))


async def machine() -> Machine:
    """This machine. What GPUs it has, only the engine can tell; without an engine they count not.

    How fast its memory is read is measured where that is not known, which takes half a second.
    """
    import asyncio

    from localai.engine.client import Engine
    from models.machine import this_machine
    from models.offload import Memory

    engine, gpus, shared = Engine(), [], False
    try:
        devices = (await engine.describe()).devices
        cards = [device for device in devices if device.kind == "gpu"]
        shared = not cards
        cards = cards or [device for device in devices if device.kind == "igpu"]
        gpus = [Memory(device.memory_free, device.memory_total) for device in cards]
    except LocalAIError:
        pass  # the chat will say what is wrong
    finally:
        await engine.close()
    return await asyncio.to_thread(this_machine, tuple(gpus), shared=shared and bool(gpus), measure=True)
