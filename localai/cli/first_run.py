"""What `localai chat` asks on a screen on the first run: a model, and how what one writes is protected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from localai.cli import unlock
from localai.errors import LocalAIError

if TYPE_CHECKING:
    from models.machine import Gpus, Machine
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
    import asyncio

    from localai.history import key, managed
    from models.machine import NO_GPUS, Gpus
    from models.store import Store
    from tui.screens.first_run import Questions
    from tui.shelf import StoreShelf

    here = asyncio.run(machine()) if model and not starter else None
    shelf = StoreShelf(Store(), gpus=Gpus(here.gpus, here.shared) if here else NO_GPUS)
    entries = _to_be_had(shelf) if model else []
    recommended = _recommended(here) if model else None
    names = {entry.name for entry in entries}
    return Questions(
        models=entries,
        fits={entry.name: shelf.fit(entry, 0) for entry in entries},
        recommended=recommended if recommended and recommended.name in names else None,
        protection=protection,
        keyring_problem=key.keyring_problem() if protection else "",
        least_letters=unlock.LEAST_LETTERS,
        may_be_plain=managed.may_be_plain(),
        note=_note(model),
    )


def _note(model: bool) -> str:
    from localai import policy

    if not (model and policy.current().has("forbid.pull")):
        return ""
    return "Your organization lets no model be fetched. `localai models import` adds one that is here."


def _to_be_had(shelf: StoreShelf) -> list[ModelEntry]:
    """The models of the catalogue; of those that an interrupted fetch has begun with, how far it came."""
    import msgspec

    from models import catalog
    from models.known import Known
    from tui.shelf import can_be_had, with_figures

    known = Known()
    begun = {one.name: one.arrived for one in shelf.all() if one.arrived and not one.from_source}
    entries = catalog.entries()
    wanted = (with_figures(catalog.Wanted(one, one.type, one.name), known) for one in entries)
    return [msgspec.structs.replace(one, arrived=begun.get(one.name, 0)) for one in wanted if can_be_had(one)]


def _recommended(here: Machine | None) -> Recommendation | None:
    """For the machine; the starter, if nobody has looked at that."""
    from models import catalog
    from models.recommend import Recommendation, recommend

    if here is None:
        return Recommendation(STARTER, "It is small, and the Python package index has it.")
    return recommend(catalog.entries(), here)


async def machine() -> Machine:
    """This machine with its GPUs, of which only the engine can tell.

    How fast its memory is read is measured where that is not known, which takes half a second.
    """
    import asyncio

    from models.machine import this_machine

    return await asyncio.to_thread(this_machine, await gpus(), measure=True)


async def gpus() -> Gpus:
    """What the engine finds beside the processor; without an engine, nothing."""
    import sys

    from localai.engine.client import Engine
    from models.machine import NO_GPUS, Gpus
    from models.offload import Memory

    engine = Engine()
    try:
        found = (await engine.describe()).devices
    except LocalAIError:
        return NO_GPUS  # the chat will say what is wrong
    finally:
        await engine.close()
    own = [device for device in found if device.kind == "gpu"]
    cards = own or [device for device in found if device.kind == "igpu"]
    devices = tuple(Memory(device.memory_free, device.memory_total) for device in cards)
    return Gpus(devices, shared=bool(cards) and (not own or sys.platform == "darwin"))
