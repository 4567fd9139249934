"""Files that nobody vouches for, given to the real engine: other architectures, templates, mutants."""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from benchmarks.mutants import File, Mutant, Mutants, Pair, read, renamed, text
from benchmarks.trials import Trials
from localai.chat.messages import ChatMessage
from localai.chat.prompt import ASSISTANT, USER
from localai.engine import loading, protocol
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import EngineError, LoadError, LocalAIError, ModelFileError, UnsupportedModel
from models import templates
from models.gguf import check_supported, read_header

HI = [ChatMessage("user", "Hi")]
ONE_THREAD = LoadOptions(threads=1, context=256)
STRANGE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
ENDLESS = "{% for a in range(9999) %}" * 4 + "{% endfor %}" * 4
HUGE = "{% set ns = namespace(a='x') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}"
PATIENCE_S = 30.0

Write = Callable[[File], Path]


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    yield engine
    await engine.close()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(file)` makes a model of the parts."""

    def written(file: File) -> Path:
        path = tmp_path / "hostile.gguf"
        path.write_bytes(file.head() + file.body())
        return path

    return written


def plain(nano: Path, template: str | None) -> File:
    """r1-nano without R1's markers, with another template."""
    file = read(nano)
    at = file.find(b"tokenizer.ggml.tokens")
    value = file.pairs[at].value
    for marker in (USER.encode(), ASSISTANT.encode()):
        assert text(marker) in value
        value = value.replace(text(marker), text(marker.replace("｜".encode(), b"|||")))
    file.pairs[at] = file.pairs[at]._replace(value=value)
    file.pairs = [pair for pair in file.pairs if pair.key != b"tokenizer.chat_template"]
    if template is not None:
        file.put(Pair(b"tokenizer.chat_template", 8, text(template.encode())))
    return file


async def said(engine: Engine, messages: list[ChatMessage]) -> protocol.Done:
    async with aclosing(engine.generate(messages, Sampling(temperature=0), Limits(max_tokens=2))) as events:
        return await ended(events)


async def ended(events: AsyncIterator[protocol.GenerationEvent]) -> protocol.Done:
    *_, done = [event async for event in events]
    assert isinstance(done, protocol.Done)
    return done


async def refused(engine: Engine, path: Path, options: LoadOptions = ONE_THREAD) -> LocalAIError:
    with pytest.raises(LocalAIError) as caught:
        await engine.load(path, options)
    assert str(caught.value).isprintable()
    return caught.value


# ------------------------------------------------------------------------------------------ architectures


def gemma(nano: Path) -> File:
    """A gemma model with r1-nano's weights: nonsense, but llama.cpp knows it."""
    file = renamed(read(nano), b"gemma")
    file.tensors = [
        one for one in file.tensors if not one.name.endswith(b".bias") and one.name != b"output.weight"
    ]
    return file


async def test_another_architecture_runs_only_if_it_is_allowed(
    engine: Engine, write: Write, nano: Path
) -> None:
    path = write(gemma(nano))
    error = await refused(engine, path)
    assert isinstance(error, UnsupportedModel)
    assert "--allow-architecture gemma" in error.hint
    allowed = LoadOptions(threads=1, context=256, allow_architectures=("phi2", "gemma"))
    loaded = await engine.load(path, allowed)
    assert loaded.architecture == "gemma"
    assert (await said(engine, HI)).usage.completion_tokens > 0


async def test_an_allowed_architecture_that_llama_cpp_does_not_know_is_one_line(
    engine: Engine, write: Write, nano: Path
) -> None:
    path = write(renamed(read(nano), b"nonsense"))
    options = LoadOptions(threads=1, context=256, allow_architectures=("nonsense",))
    error = await refused(engine, path, options)
    assert isinstance(error, LoadError)
    assert "unknown model architecture: 'nonsense'" in error.message


# ---------------------------------------------------------------------------------------------- templates


async def test_a_template_that_nobody_has_read_is_run_only_after_it_was_accepted(
    engine: Engine, write: Write, nano: Path
) -> None:
    path = write(plain(nano, STRANGE))
    error = await refused(engine, path)
    assert error.message == f"{path} brings its own chat template, which nobody here has read"
    assert f"localai models accept {path}" in error.hint
    templates.accept(STRANGE)
    loaded = await engine.load(path, ONE_THREAD)
    assert (loaded.prompt_format, loaded.system_role) == ("embedded", True)
    assert (await said(engine, HI)).reason == "length"
    templates.forget(STRANGE)
    await refused(engine, path)


async def test_the_refusal_calls_a_stored_model_by_its_name(engine: Engine, write: Write, nano: Path) -> None:
    path = write(plain(nano, STRANGE))
    with pytest.raises(UnsupportedModel, match=r"strange:1b brings.*localai models accept strange:1b"):
        await engine.load(path, ONE_THREAD, name="strange:1b")


async def test_a_base_model_can_be_measured_but_not_talked_with(
    engine: Engine, write: Write, nano: Path
) -> None:
    path = write(plain(nano, None))
    assert "base model" in (await refused(engine, path)).hint
    loaded = await engine.load(path, LoadOptions(threads=1, context=256, converse=False))
    assert loaded.prompt_format == "none"
    stream = engine.continue_tokens([1, 2], Sampling(temperature=0), Limits(2), ignore_end=True)
    async with aclosing(stream) as events:
        assert (await ended(events)).reason == "length"
    with pytest.raises(EngineError, match="not for conversations"):
        await said(engine, HI)


async def test_r1s_own_format_is_used_whatever_the_file_brings(
    engine: Engine, write: Write, nano: Path
) -> None:
    file = read(nano)
    file.put(Pair(b"tokenizer.chat_template", 8, text(ENDLESS.encode())))
    loaded = await engine.load(write(file), ONE_THREAD)
    assert loaded.prompt_format == "deepseek-r1"
    assert loaded.notes == (loading.OTHER_TEMPLATE,)
    loaded = await engine.load(nano, ONE_THREAD)
    assert loaded.notes == ()


@pytest.mark.parametrize("bomb", [ENDLESS, HUGE], ids=["endless", "huge"])
async def test_an_accepted_template_that_never_ends_is_one_line(
    engine: Engine, write: Write, nano: Path, bomb: str
) -> None:
    templates.accept(bomb + STRANGE)
    started = time.monotonic()
    error = await refused(engine, write(plain(nano, bomb + STRANGE)))
    assert isinstance(error, UnsupportedModel)
    assert "the chat template in the file" in error.message
    assert time.monotonic() - started < PATIENCE_S


async def test_a_template_that_fails_later_ends_one_request(engine: Engine, write: Write, nano: Path) -> None:
    template = "{% if messages|length > 2 %}" + HUGE + "{% endif %}" + STRANGE
    templates.accept(template)
    await engine.load(write(plain(nano, template)), ONE_THREAD)
    assert (await said(engine, HI)).usage.completion_tokens > 0
    with pytest.raises(UnsupportedModel, match="too long"):
        await said(engine, [*HI, ChatMessage("assistant", "Hello"), *HI])
    assert (await said(engine, HI)).usage.completion_tokens > 0


# ------------------------------------------------------------------------------------------------ headers


async def test_all_parts_of_a_model_are_read_by_us_first(engine: Engine, tmp_path: Path, nano: Path) -> None:
    whole = read(nano)
    paths = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    half = len(whole.tensors) // 2
    for number, tensors in enumerate((whole.tensors[:half], whole.tensors[half:])):
        part = File(list(whole.pairs), list(tensors), whole.data)
        part.put(Pair(b"split.no", 2, struct.pack("<H", number)))
        part.put(Pair(b"split.count", 2, struct.pack("<H", 2)))
        part.put(Pair(b"split.tensors.count", 5, struct.pack("<i", len(whole.tensors))))
        paths[number].write_bytes(part.head() + part.body())
    assert (await engine.load(paths[0], ONE_THREAD)).architecture == "qwen2"
    part.pairs.append(Pair(b"hostile", 9, struct.pack("<IQ", 8, 1 << 62)))
    paths[1].write_bytes(part.head() + part.body())
    error = await refused(engine, paths[0])
    assert isinstance(error, ModelFileError)
    assert "m-00002-of-00002" in error.message


def test_no_mutant_that_passes_our_checks_ends_the_engine(tmp_path: Path, nano: Path) -> None:
    """A sample of those that benchmarks/hostile.py tries: to every one, the engine has a word to say."""
    mutants, path = Mutants(nano), tmp_path / "mutant.gguf"
    passed = [number for number in range(400) if _passes(mutants, number, path)]
    assert len(passed) > 120
    found = {number: what for number, what, _ in Trials(path).run(mutants, passed)}
    assert list(found) == passed
    wrong = {n: what for n, what in found.items() if what.startswith(("ended", "unexpected"))}
    assert not wrong
    assert sum(what == "ok" for what in found.values()) > 50


def test_without_our_checks_some_do(tmp_path: Path, nano: Path) -> None:
    """And the trials go on: what the test above would see."""
    mutants = Mutants(nano)
    twice = mutants.bases["qwen2"]
    at = twice.find(b"tokenizer.ggml.tokens")
    value = twice.pairs[at].value
    twice.pairs[at] = twice.pairs[at]._replace(value=value.replace(text(b"!"), text(b"#"), 1))
    model = tmp_path / "twice.gguf"
    model.write_bytes(twice.head() + twice.body())
    with pytest.raises(UnsupportedModel, match="token '#' is there twice"):
        check_supported(read_header(model), model)
    mutants.make = lambda number: Mutant(twice.head(), twice.body(), "")  # type: ignore[method-assign]
    trials = Trials(tmp_path / "mutant.gguf", unchecked=True)
    said = [what for _, what, _ in trials.run(mutants, [1, 2])]
    assert [what[:35] for what in said] == ["ended: it was ended by signal 6 (SIG"[:35]] * 2


def _passes(mutants: Mutants, number: int, path: Path) -> bool:
    head, size, _ = mutants.head(number)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    try:
        check_supported(read_header(path), path)
    except (ModelFileError, UnsupportedModel):
        return False
    return True
