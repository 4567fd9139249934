"""Where the policy is looked for, and what its keys are called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from localai.errors import PolicyError

VARIABLE: Final = "LOCALAI_POLICY"
"""Names a further policy file, which can only make the policy stricter."""
HINT: Final = "Nothing runs until whoever manages this machine has repaired it"

Switch = Literal[
    "require.sandbox",
    "require.encryption",
    "require.incognito",
    "forbid.pull",
    "forbid.plain_history",
    "forbid.export",
    "forbid.unknown_architectures",
]
Key: TypeAlias = Switch | Literal["require.retention_days", "models.allow"]
SWITCHES: Final[tuple[Switch, ...]] = get_args(Switch)
KEYS: Final[tuple[str, ...]] = (*SWITCHES, "require.retention_days", "models.allow", "contact")


def system_path() -> Path:
    """Where the organization's policy is: a folder that only an administrator can write to.

    Nothing in the user's environment moves it.
    """
    if sys.platform == "win32":
        return Path(_program_data()) / "localai" / "policy.toml"
    if sys.platform == "darwin":
        return Path("/Library/Application Support/localai/policy.toml")
    return Path("/etc/localai/policy.toml")


def _program_data() -> str:
    """The folder as Windows itself knows it: the variable ProgramData is the user's to change."""
    import ctypes

    buffer = ctypes.create_unicode_buffer(260)
    windll = getattr(ctypes, "windll")  # noqa: B009 - mypy on other systems knows no such thing
    common_appdata = 35
    if windll.shell32.SHGetFolderPathW(None, common_appdata, None, 0, buffer) != 0:
        raise PolicyError("the folder of the policy cannot be found out", HINT)
    return buffer.value
