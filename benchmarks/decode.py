"""Generation speed of `localai ask` against llama.cpp's own, as a ratio.

Both sides generate the same number of tokens after the same prompt with the same file and threads, each in a
fresh process, in turns. "bare" is a greedy loop over the low-level bindings that does nothing but decode and
sample. `ask` runs twice: greedily, and with the sampling that the model recommends, which costs more. The
claim: at least 0.97.

Usage: python benchmarks/decode.py [MODEL] [--rounds 7] [--tokens 128] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from localai import hardware
from localai.chat.messages import ChatMessage
from localai.chat.prompt import USER, R1Format
from localai.chat.template import EmbeddedFormat
from localai.errors import LocalAIError
from models.gguf import read_header
from models.store import Store

CONTEXT = 2048
"""Tokens of context on both sides; any R1 has more."""
PROMPT = "Write a long story about a lighthouse keeper, the sea, and a letter that arrives too late."


def main() -> None:
    arguments = _arguments()
    if arguments.bare:
        print(json.dumps(bare(arguments.model, arguments.tokens, arguments.threads)))
        return
    try:
        path = str(Store().resolve(arguments.model).path)
    except LocalAIError as error:
        sys.exit(str(error))
    rates: dict[str, list[float]] = {"greedy": [], "recommended": [], "bare": []}
    for round_number in range(arguments.rounds + 1):
        for side in rates:
            rate = measure(side, path, arguments)
            if round_number:  # the first round only warms the disk cache
                rates[side].append(rate)
    report(rates, arguments)


def measure(side: str, path: str, arguments: argparse.Namespace) -> float:
    """Tokens per second of one fresh process."""
    if side == "bare":
        command = [sys.executable, __file__, path, "--bare", "--tokens", str(arguments.tokens)]
        command += ["--threads", str(arguments.threads)]
        return float(_json_of(command)["tokens_per_s"])
    command = [sys.executable, "-m", "localai", "ask", arguments.model, PROMPT, "--json"]
    command += ["--max-tokens", str(arguments.tokens), "--threads", str(arguments.threads), "--seed", "1"]
    command += ["--temperature", "0"] if side == "greedy" else []
    command += ["--context", str(CONTEXT)]
    answer = _json_of(command)
    if answer["usage"]["completion_tokens"] != arguments.tokens:
        sys.exit(
            f"the model stopped after {answer['usage']['completion_tokens']} tokens: take --tokens smaller"
        )
    return float(answer["timings"]["tokens_per_s"])


def _json_of(command: list[str]) -> Any:
    return json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout
    )


def bare(path: str, count: int, threads: int) -> dict[str, float]:
    """The loop that nothing can beat: decode, sample, again."""
    import llama_cpp.llama_cpp as api

    log = api.llama_log_callback(lambda *_: None)
    api.llama_log_set(log, None)
    model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
    parameters = api.llama_context_default_params()
    parameters.n_ctx, parameters.n_threads, parameters.n_threads_batch = CONTEXT, threads, threads
    context = api.llama_init_from_model(model, parameters)
    text = prompt_text(Path(path)).encode()
    tokens = (api.llama_token * 512)()
    length = api.llama_tokenize(api.llama_model_get_vocab(model), text, len(text), tokens, 512, False, True)
    sampler = api.llama_sampler_init_greedy()
    api.llama_decode(context, api.llama_batch_get_one(tokens, length))
    one = (api.llama_token * 1)()
    one[0] = api.llama_sampler_sample(sampler, context, -1)
    batch = api.llama_batch_get_one(one, 1)
    started = time.perf_counter()
    for _ in range(count - 1):
        api.llama_decode(context, batch)
        one[0] = api.llama_sampler_sample(sampler, context, -1)
    seconds = time.perf_counter() - started
    return {"tokens_per_s": (count - 1) / seconds}


def prompt_text(path: Path) -> str:
    """The prompt as `localai ask` makes it, so that both sides read the same tokens."""
    template = read_header(path).chat_template or ""
    chat = R1Format() if USER in template else EmbeddedFormat(template, "", "")
    return "".join(segment.text for segment in chat.render([ChatMessage("user", PROMPT)]))


def report(rates: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    bare = rates.pop("bare")
    figures: dict[str, Any] = {
        "model": arguments.model,
        "threads": arguments.threads,
        "tokens": arguments.tokens,
        "bare": {"tokens_per_s": statistics.median(bare)},
    }
    for mode, ours in rates.items():
        figures[mode] = {
            "tokens_per_s": statistics.median(ours),
            "ratio": statistics.median(ours) / statistics.median(bare),
            "ratios": (ratios := [one / other for one, other in zip(ours, bare, strict=True)]),
            "median_ratio": statistics.median(ratios),
        }
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"bare         median {statistics.median(bare):7.1f} tokens/s")
    for mode in rates:
        found = figures[mode]
        pairs = (
            f"median {found['median_ratio']:.3f}, {min(found['ratios']):.3f} to {max(found['ratios']):.3f}"
        )
        rate = f"{found['tokens_per_s']:7.1f} tokens/s"
        print(f"{mode:<12} median {rate}, ratio {found['ratio']:.3f} (pair by pair: {pairs})")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="smollm2:135m")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=hardware.physical_cores())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
