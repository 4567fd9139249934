"""What llama.cpp's own functions do, with nothing of ours around them: for decode.py and speculate.py.

A process of its own, for the app never loads llama.cpp. Reads one JSON object and prints another:

    {"task": "tokens", "path": ..., "text": ...}                  the tokens of a text
    {"task": "rate", "path": ..., "threads": ..., "tokens": [...], "count": ...}
        how fast a greedy loop evaluates and draws so many tokens behind these: "tokens_per_s"
    {"task": "margins", ...the same}
        the pieces that the loop draws; for each the second likeliest ("seconds"), by how much the first leads
        ("margins", in logits), and by how much that is another when tokens are evaluated 8 at once ("noise")
"""

from __future__ import annotations

import codecs
import ctypes
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as api
import numpy as np
import numpy.typing as npt

CONTEXT = 2048
"""Tokens; any R1 has more."""
AT_ONCE = 8
"""Tokens evaluated at once, to see what that changes."""
_log = api.llama_log_callback(lambda *_: None)


class Bare:
    """A model, a context and a greedy sampler, as llama.cpp sets them up by itself."""

    def __init__(self, path: str, threads: int) -> None:
        api.llama_log_set(_log, None)
        self.model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
        self.vocabulary = api.llama_model_get_vocab(self.model)
        parameters = api.llama_context_default_params()
        parameters.n_ctx, parameters.n_threads, parameters.n_threads_batch = CONTEXT, threads, threads
        self.context = api.llama_init_from_model(self.model, parameters)
        self.sampler = api.llama_sampler_init_greedy()

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, its markers taken as such."""
        data = text.encode()
        tokens = (api.llama_token * (len(data) + 8))()
        count = api.llama_tokenize(self.vocabulary, data, len(data), tokens, len(tokens), False, True)
        return list(tokens[:count])

    def evaluate(self, tokens: Sequence[int]) -> None:
        """Evaluate `tokens` behind what was evaluated before."""
        array = (api.llama_token * len(tokens))(*tokens)
        if api.llama_decode(self.context, api.llama_batch_get_one(array, len(tokens))) != 0:
            sys.exit("llama.cpp could not evaluate a batch")

    def draw(self, count: int, seen: Callable[[int], None] = lambda token: None) -> list[int]:
        """Greedily so many tokens; `seen` is called with each before the next is evaluated."""
        drawn: list[int] = []
        while True:
            token = int(api.llama_sampler_sample(self.sampler, self.context, -1))
            drawn.append(token)
            seen(token)
            if len(drawn) == count:
                return drawn
            self.evaluate([token])

    def logits(self) -> npt.NDArray[np.float32]:
        """Those behind the last token."""
        size = api.llama_vocab_n_tokens(self.vocabulary)
        return np.ctypeslib.as_array(api.llama_get_logits_ith(self.context, -1), (size,)).copy()

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """What the tokens add to the text, one by one; characters may be spread over several."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return [decoder.decode(self._piece(token)) for token in tokens]

    def _piece(self, token: int) -> bytes:
        text = ctypes.create_string_buffer(256)
        length = api.llama_token_to_piece(self.vocabulary, token, text, len(text), 0, True)
        return text.raw[: max(length, 0)]


def rate(bare: Bare, tokens: list[int], count: int) -> dict[str, Any]:
    """The loop that nothing can beat; the last token of the prompt is its first evaluation."""
    bare.evaluate(tokens)
    bare.draw(min(count, 16))  # warm-up
    api.llama_memory_seq_rm(api.llama_get_memory(bare.context), 0, len(tokens) - 1, -1)
    started = time.perf_counter()
    bare.evaluate(tokens[-1:])
    bare.draw(count)
    return {"tokens_per_s": count / (time.perf_counter() - started)}


def margins(bare: Bare, tokens: list[int], count: int) -> dict[str, Any]:
    """How near the greedy choices were, and how much evaluating several tokens at once moves them."""
    rows: list[tuple[int, int, float]] = []

    def seen(token: int) -> None:
        logits = bare.logits()
        second = int(np.argpartition(logits, -2)[-2])
        rows.append((token, second, float(logits[token] - logits[second])))

    bare.evaluate(tokens)
    drawn = bare.draw(count, seen)
    leads = _leads_at_once(bare, tokens, drawn, rows)
    return {
        "pieces": bare.pieces(drawn),
        "seconds": [bare.pieces([second])[0] for _, second, _ in rows],
        "margins": [lead for _, _, lead in rows],
        "noise": [abs(lead - other) for (_, _, lead), other in zip(rows, leads, strict=True)],
    }


def _leads_at_once(
    bare: Bare, tokens: list[int], drawn: list[int], rows: list[tuple[int, int, float]]
) -> list[float]:
    """The same leads when the reply is evaluated some tokens at once.

    Only the logits behind the last token of a batch are kept, so for each token the batch that ends there is
    evaluated anew.
    """
    memory = api.llama_get_memory(bare.context)
    leads = []
    for index, (first, second, _) in enumerate(rows):
        end = len(tokens) + index
        start = max(end - AT_ONCE, 0)
        api.llama_memory_seq_rm(memory, 0, start, -1)
        bare.evaluate([*tokens, *drawn][start:end])
        logits = bare.logits()
        leads.append(float(logits[first] - logits[second]))
    return leads


def main() -> None:
    request = json.loads(sys.stdin.read())
    path = Path(request["path"])
    bare = Bare(str(path), request.get("threads", 1))
    if request["task"] == "tokens":
        print(json.dumps({"tokens": bare.tokenize(request["text"])}))
        return
    task = {"rate": rate, "margins": margins}[request["task"]]
    print(json.dumps(task(bare, request["tokens"], request["count"])))


if __name__ == "__main__":
    main()
