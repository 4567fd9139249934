"""What a worker does to load a model: what fits, on which device, with which prompt format."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Collection, Sequence
from pathlib import Path

from localai import hardware
from localai.chat.messages import ChatMessage
from localai.chat.prompt import ASSISTANT, R1_TEMPERATURE, R1_TOP_P, USER, PromptFormat, R1Format, Segment
from localai.engine.bindings import commit
from localai.engine.llama import Model, devices
from localai.engine.protocol import Device
from localai.engine.settings import KvType, LoadOptions, Sampling
from localai.errors import EngineError, UnsupportedModel, UsageError
from models import fit, gguf, offload, templates
from models.header import Header
from models.parts import read_whole

BATCH = 512
"""Prompt tokens evaluated at once: llama.cpp's own default, beyond which nothing is gained."""
MOST_PARALLEL = 64
DEFAULT_SAMPLING = Sampling(temperature=0.7, top_p=0.95, top_k=40, min_p=0.05)
"""For models that recommend nothing."""
R1_SAMPLING = Sampling(temperature=R1_TEMPERATURE, top_p=R1_TOP_P, top_k=0, min_p=0.0)
OTHER_TEMPLATE = "the chat template in the file is not one of R1's: it is not run, R1's own format is used"

_SAMPLED = 64
_SAMPLE_BYTES = 64 * 1024


class Plan:
    """How the GGUF at `path` will be loaded, decided from its header before llama.cpp sees it.

    Raises ModelFileError, UnsupportedModel, UsageError and LoadError for what cannot work.
    """

    def __init__(self, path: Path, options: LoadOptions) -> None:
        self.path, self.options = path, options
        self.header = read_whole(path, options.allow_architectures)
        gguf.check_supported(self.header, path, options.allow_architectures)  # the tensors of all parts
        self.batch = options.batch or BATCH
        if not 1 <= options.parallel <= MOST_PARALLEL:
            raise UsageError(f"{options.parallel} requests at once: 1 to {MOST_PARALLEL} are possible")
        if self.batch < options.parallel:
            raise UsageError(f"--batch {self.batch} is too small for {options.parallel} requests at once")
        self.kv_type: KvType = options.kv_type or "f16"
        self._flash = options.flash_attention != "off"
        if self.kv_type != "f16" and not self._flash:
            raise UsageError(
                f"llama.cpp keeps values as {self.kv_type} only with flash attention",
                "Leave out --flash-attention off, or --kv-type",
            )
        self.notes: list[str] = []
        self.threads = options.threads or hardware.physical_cores()
        self.devices = _offload_devices()
        self.memory = [offload.Memory(d.memory_free, d.memory_total) for d in self.devices]
        fit.check_context(self.header, options.context)
        self.context = options.context or self._default_context()
        chosen = offload.plan(
            self.header,
            self.context,
            self.kv_type,
            options.gpu_layers,
            self.memory,
            batch=self.batch,
            flash=self._flash,
        )
        self.gpu_layers = chosen.layers
        self._available = hardware.available_memory()
        self.notes += chosen.notes
        self.notes += fit.check_memory(
            self.header,
            self.context,
            self.kv_type,
            self._available,
            hardware.total_memory(),
            batch=self.batch,
            flash=self._flash,
            gpu_layers=self.gpu_layers,
            mapped=options.mmap and not (options.mlock or options.writable),
        )

    def _default_context(self) -> int:
        free = hardware.available_memory() - self.header.tensor_bytes
        return offload.default_context(
            self.header, free, self.kv_type, self.memory, batch=self.batch, flash=self._flash
        )

    @property
    def backend(self) -> str:
        """The devices that compute, such as "CPU" or "CUDA0 + CPU"."""
        names = [device.name for device in self.devices] if self.gpu_layers else []
        return " + ".join([*names, "CPU"])

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU computes any layer."""
        return self.gpu_layers <= self.header.block_count

    @property
    def parking_limit(self) -> int:
        """Bytes that conversations may take which wait beside the context."""
        return fit.parking_limit(
            self.header,
            self.context,
            self.kv_type,
            self._available,
            batch=self.batch,
            flash=self._flash,
            gpu_layers=self.gpu_layers,
        )

    @property
    def largest_matrix(self) -> float:
        """The share of all weights that the largest matrix within a layer has."""
        width, inner = self.header.embedding_length, self.header.own("feed_forward_length")
        return min(1.0, width * max(width, inner) / max(self.header.parameters, 1))

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token."""
        return fit.kv_bytes_per_token(self.header, self.kv_type)

    def weights_read(self) -> int:
        """Bytes of weights that are read for each generated token.

        All, but for a separate input embedding, of which one row is read.
        """
        tensors = {tensor.name: tensor for tensor in self.header.tensors}
        embedding = tensors.get("token_embd.weight")
        separate = embedding is not None and "output.weight" in tensors
        return self.header.tensor_bytes - (embedding.size if separate and embedding is not None else 0)

    def most_context(self) -> int:
        """The largest context that the model supports and memory allows; not known where a GPU has it."""
        if self.gpu_layers:
            return self.context
        shape = fit.Shape.of(self.header)
        held = fit.context_bytes(shape, self.context, self.kv_type, batch=self.batch, flash=self._flash)
        free = hardware.available_memory() + held
        return fit.largest_context(self.header, free, self.kv_type, batch=self.batch, flash=self._flash)

    def fingerprint(self, sha256: str) -> str:
        """What saved states are tied to: the model, llama.cpp, and all settings that a state depends on."""
        parts = [
            sha256 or digest(self.path),
            commit(),
            platform.machine(),
            self.kv_type,
            self.options.flash_attention,
            self.backend,
            str(self.gpu_layers),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _offload_devices() -> list[Device]:
    """The devices that llama.cpp moves layers to: integrated GPUs only where there is no other."""
    found = devices()
    return [d for d in found if d.kind == "gpu"] or [d for d in found if d.kind == "igpu"]


def digest(path: Path) -> str:
    """Tells one model file from another in milliseconds: of its size, its header and 64 places in it."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        found.update(file.read(1 << 20))
        for place in range(_SAMPLED):
            file.seek(size * place // _SAMPLED)
            found.update(file.read(_SAMPLE_BYTES))
    return found.hexdigest()


class NoFormat:
    """What a model gets that only continues tokens."""

    name = "none"
    reasoning = False
    system_role = False

    def render(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """Always an EngineError."""
        raise EngineError("the model was loaded to continue tokens, not for conversations")

    def opening(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """As `render`."""
        return self.render(messages)


def require_format(header: Header, path: Path, accepted: Collection[str]) -> None:
    """UnsupportedModel if the header tells that there is no prompt format: before gigabytes are read."""
    if not header.token_facts.r1_markers:
        _require_template(header, path, accepted)


def _require_template(header: Header, path: Path, accepted: Collection[str]) -> str:
    """The template in the file, which somebody has read."""
    template = header.chat_template
    if not template:
        raise UnsupportedModel(
            f"the model {header.name or header.architecture!r} has no chat template",
            "It is a base model, not one to talk with",
        )
    if not templates.may_run(template, accepted):
        raise templates.refused(path)
    return template


def prompt_format(model: Model, plan: Plan, accepted: Collection[str]) -> PromptFormat:
    """R1's where the vocabulary has its markers, else the template in the file, if it may run.

    UnsupportedModel without. What the user should know of it is added to the notes of `plan`.
    """
    header = plan.header
    if model.special_token(USER) is not None and model.special_token(ASSISTANT) is not None:
        if header.chat_template and templates.digest(header.chat_template) not in templates.R1:
            plan.notes.append(OTHER_TEMPLATE)
        return R1Format()
    if not plan.options.converse:
        return NoFormat()
    template = _require_template(header, plan.path, accepted)
    from localai.chat.template import EmbeddedFormat  # here, because Jinja takes 40 ms and R1 needs none

    return EmbeddedFormat(template, model.bos, model.eos, add_bos=model.adds_bos, path=str(plan.path))


def recommended(header: Header, form: PromptFormat) -> Sampling:
    """What the file recommends, completed by what its family does."""

    def number(key: str) -> float | None:
        value = header.metadata.get(f"general.sampling.{key}")
        return float(value) if isinstance(value, int | float) else None

    top_k = number("top_k")
    own = Sampling(
        temperature=number("temp"),
        top_p=number("top_p"),
        top_k=None if top_k is None else int(top_k),
        min_p=number("min_p"),
    )
    return own.completed_by(R1_SAMPLING if form.name == R1Format.name else DEFAULT_SAMPLING)
