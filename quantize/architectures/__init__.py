"""The families that can be converted, by the name that config.json gives to the architecture."""

from __future__ import annotations

from typing import Any

from localai.errors import UnsupportedModel
from quantize.architectures.base import Config, Family, read_config
from quantize.architectures.llama import Llama
from quantize.architectures.qwen2 import Qwen2
from quantize.architectures.qwen3 import Qwen3

FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Llama(),
    "Qwen2ForCausalLM": Qwen2(),
    "Qwen3ForCausalLM": Qwen3(),
}


def family_and_config(raw: dict[str, Any]) -> tuple[Family, Config]:
    """The family and the checked hyper-parameters of the model with the config.json `raw`."""
    match raw.get("architectures"):
        case [str(name), *_] if name in FAMILIES:
            family = FAMILIES[name]
        case [str(name), *_]:
            raise UnsupportedModel(f"models of the architecture {name} cannot be converted", _SUPPORTED)
        case _:
            raise UnsupportedModel("config.json does not name the architecture of the model", _SUPPORTED)
    config = read_config({**family.defaults, **raw})
    family.check(config)
    return family, config


_SUPPORTED = f"Supported: {', '.join(FAMILIES)}"
