"""The one exception tree of the program.

    LocalAIError                 exit code 1
    ├── UsageError               2: the command line or a setting is wrong
    ├── Interrupted              130: the user stopped it
    ├── ModelError
    │   ├── ModelNotFound        no model of that name or path
    │   ├── ModelFileError       not a GGUF, or truncated, or malformed
    │   └── UnsupportedModel     well-formed, but not something that this program runs
    ├── CheckpointError          a checkpoint folder that cannot be converted
    ├── QuantizeError            the conversion itself failed
    ├── StoreError
    │   ├── IntegrityError       bytes that do not have the digest they should
    │   └── NoSpace              the disk is, or would become, full
    ├── FetchError               a model could not be fetched from its source
    ├── HistoryError             the conversations cannot be read or written
    │   └── HistoryLocked        the passphrase is missing or wrong
    ├── PolicyError              the organization's policy forbids it, or the policy itself cannot be read
    ├── OfflineError             something tried to use the network that must not
    └── EngineError
        ├── SandboxError         the worker could not be confined as it must be
        ├── LoadError            llama.cpp refused the model, or memory did not suffice
        ├── ContextOverflow      the prompt is longer than the context
        ├── WorkerDied           the worker process ended by itself
        └── WorkerHung           the worker process stopped answering

Each error says what happened, to which file, and (`hint`) what to do next. Foreign errors are mapped to
this tree where they enter the program.
"""

from __future__ import annotations


class LocalAIError(Exception):
    """Base of all errors that are shown to the user as one line.

    `message` says what happened and to what; `hint`, where there is one, says what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(LocalAIError):
    """Wrong words on the command line, or a setting that cannot be."""

    exit_code = 2


class Interrupted(LocalAIError):
    """Stopped by the user."""

    exit_code = 130


class ModelError(LocalAIError):
    """Something about a model."""


class ModelNotFound(ModelError):
    """No model of that name is installed or known."""


class ModelFileError(ModelError):
    """The file is not a GGUF, or is truncated or malformed."""


class UnsupportedModel(ModelError):
    """The file is well-formed, but its architecture or form is not one that this program runs."""


class CheckpointError(LocalAIError):
    """The checkpoint folder is incomplete, malformed or of a kind that is refused."""


class QuantizeError(LocalAIError):
    """Conversion or quantization failed."""


class StoreError(LocalAIError):
    """The model store could not do what was asked."""


class IntegrityError(StoreError):
    """Size or digest differ from what they must be."""


class NoSpace(StoreError):
    """Not enough space on the disk."""


class FetchError(LocalAIError):
    """A model could not be fetched."""


class HistoryError(LocalAIError):
    """The conversations cannot be read or written."""


class HistoryLocked(HistoryError):
    """The passphrase that protects the conversations is missing or wrong."""


class PolicyError(LocalAIError):
    """The organization's policy forbids what was asked, or it cannot be read, which forbids everything."""


class OfflineError(LocalAIError):
    """A part of the program that must stay off the network tried to use it."""


class EngineError(LocalAIError):
    """Something about the engine worker."""


class SandboxError(EngineError):
    """A worker could not be confined as far as was asked for."""


class LoadError(EngineError):
    """llama.cpp did not load the model."""


class ContextOverflow(EngineError):
    """The prompt does not fit into the context."""


class WorkerDied(EngineError):
    """The worker process ended although nobody asked it to."""


class WorkerHung(EngineError):
    """The worker process no longer answers."""


def by_name(name: str) -> type[LocalAIError]:
    """The class of the tree with that name; `EngineError` for a name that is not in the tree.

    Errors cross the pipe between processes by name: nothing but this tree can come out of it.
    """
    found = [cls for cls in _descendants(LocalAIError) if cls.__name__ == name]
    return found[0] if found else EngineError


def _descendants(cls: type[LocalAIError]) -> list[type[LocalAIError]]:
    children = cls.__subclasses__()
    return [cls, *(c for child in children for c in _descendants(child))]
