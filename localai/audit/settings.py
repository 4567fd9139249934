"""Settings of the user and of the environment that weaken a protection."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Mapping
from typing import Final

from localai import paths
from localai.audit.advisories import today
from localai.audit.finding import Area, Finding
from localai.confine import choice
from models import catalog, templates

_LOADED: Final = ("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "DYLD_LIBRARY_PATH")
_PYTHON: Final = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT")
_ENDS: Final = {
    (3, 11): datetime.date(2027, 10, 31),
    (3, 12): datetime.date(2028, 10, 31),
    (3, 13): datetime.date(2029, 10, 31),
    (3, 14): datetime.date(2030, 10, 31),
    (3, 15): datetime.date(2031, 10, 31),
}
"""After the month of this day a version gets no more security fixes: https://devguide.python.org/versions/."""


def findings(
    environment: Mapping[str, str] = os.environ, clock: Callable[[], datetime.date] = today
) -> list[Finding]:
    """All that weakens something."""
    return [*_variables(environment), *_choices(environment), *_python(clock())]


def _variables(environment: Mapping[str, str]) -> list[Finding]:
    found = []

    def told(area: Area, name: str, what: str) -> None:
        found.append(Finding(area, f"{name} is set: {what}", f"unset {name}"))

    if environment.get(choice.VARIABLE) == "off":
        what = f"the sandbox is switched off, by --sandbox off or by {choice.VARIABLE}"
        found.append(Finding("sandbox", what, f"Leave --sandbox off out, and unset {choice.VARIABLE}"))
    for name in _LOADED:
        if environment.get(name):
            told("environment", name, "other code is loaded into the program and its engine")
    for name in _PYTHON:
        if environment.get(name):
            told("environment", name, "other code can take the place of the program's own")
    if environment.get("LLAMA_CPP_LIB_PATH"):
        told("environment", "LLAMA_CPP_LIB_PATH", "the engine is another than the one that is installed")
    if environment.get("LOCALAI_DEBUG"):
        told("environment", "LOCALAI_DEBUG", "errors are shown with what was being worked on")
    if environment.get("HF_ENDPOINT", "").startswith("http://"):
        told("environment", "HF_ENDPOINT", "models are asked for without encryption")
    for name in ("LOCALAI_PASSPHRASE", "LOCALAI_PASSPHRASE_FILE"):
        if environment.get(name):
            told("history", name, "what opens the conversations is there for other programs of the user")
    return found


def _choices(environment: Mapping[str, str]) -> list[Finding]:
    found = []
    if accepted := templates.accepted():
        what = f"{len(accepted)} chat templates were accepted, which models brought along"
        found.append(
            Finding("models", what, "Take back those that nobody needs: localai models accept --undo")
        )
    own = environment.get(catalog.ENVIRONMENT) or str(paths.config_dir() / catalog.FILE)
    if os.path.lexists(own):
        what = f"models come from a catalogue of one's own, {own}"
        found.append(Finding("models", what, "See that what it names is what is wanted"))
    return found


def _python(day: datetime.date) -> list[Finding]:
    version = sys.version_info[:2]
    end = _ENDS.get(version)
    if end is None or day <= end:
        return []
    what = f"Python {version[0]}.{version[1]} has got no security fixes since {end.isoformat()}"
    return [Finding("environment", what, "Install the program with a newer Python")]
