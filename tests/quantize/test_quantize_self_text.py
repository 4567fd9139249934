"""A calibration text that the model writes itself: what is asked, what is kept, and who can be asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from localai import hardware
from localai.engine.llama import Model
from localai.errors import UnsupportedModel, UsageError
from localai.evaluation.calibration import calibration
from models import templates
from models.gguf import read_header
from quantize import client, self_text
from quantize.collecting import collect, collected_for
from quantize.imatrix import read_imatrix
from quantize.protocol import R1_CHAT, Job
from quantize.self_text import SelfText, questions, text_of
from quantize.texts import Reading, Text
from tests.quantize.doing import convert
from tests.quantize.making import NANO, make_checkpoint, names_in

ONE = Reading(threads=1)
FEW = SelfText(1_100)
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def written(nano: Path) -> Text:
    """What r1-nano writes."""
    return text_of(FEW, nano, ONE)


# --------------------------------------------------------------------------------------------- what is asked


def test_the_questions_are_of_many_kinds() -> None:
    asked = questions()
    assert len(asked) == 40
    assert sum(len(turns) > 1 for turns in asked) >= 5
    assert all(text and text == text.strip() for turns in asked for text in turns)
    assert len({turns[0] for turns in asked}) == 40
    assert sum(any(ord(c) > 0x370 for c in turns[0]) for turns in asked) >= 4  # other scripts


def test_the_first_ones_are_a_mixture_for_models_that_write_much() -> None:
    first = [turns[0] for turns in questions()[:20]]
    assert any("Python" in question for question in first)
    assert any(ord(c) > 0x3000 for question in first for c in question)
    assert any("+" in question for question in first)


# ----------------------------------------------------------------------------------------------- what is kept


def test_the_text_is_what_the_model_read_and_wrote(written: Text, nano: Path) -> None:
    """With R1's markers, as it is read again; with its digest in its name."""
    assert written.special
    assert written.content.startswith("<｜User｜>What is 417 + 286?<｜Assistant｜><think>\n")
    assert "</think>\n\n417 + 286 = **703**<｜end▁of▁sentence｜>" in written.content
    digest = hashlib.sha256(written.content.encode()).hexdigest()
    assert written.name == f"written by the model itself, sha256 {digest}"
    with Model(nano, 0, lambda share: True) as model:
        tokens = model.tokenize_document(written.content, special=True)
        assert 1_100 <= len(tokens) < 1_200  # the last prompt may be begun just before
        assert tokens[:2] == [
            model.special_token("<｜begin▁of▁sentence｜>"),
            model.special_token("<｜User｜>"),
        ]


def test_it_is_the_same_each_time(written: Text, nano: Path) -> None:
    """Also where nobody says how many threads there are to be."""
    assert text_of(FEW, nano) == written


def test_its_name_is_as_long_as_was_foretold(written: Text) -> None:
    assert len(FEW.name.encode()) == len(written.name.encode())


def test_a_text_that_is_there_is_not_written() -> None:
    given = Text("mine", "a text")
    assert text_of(given, Path("nothing.gguf")) is given


def test_how_far_it_is(nano: Path) -> None:
    told: list[tuple[int, int]] = []
    text_of(SelfText(700), nano, ONE, lambda done, total: told.append((done, total)))
    assert told
    assert {total for _, total in told} == {700}
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# ------------------------------------------------------------------------------------- how many at a time


@pytest.mark.parametrize(
    ("trained", "gigabytes", "expected"),
    [
        (131_072, 64, (8, 8_192)),
        (2_048, 64, (2, 2_048)),
        (600, 64, (1, 600)),
        (131_072, 2, (4, 4_096)),
        (131_072, 1, (2, 2_048)),
    ],
)
def test_replies_at_a_time(
    nano: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: int,
    gigabytes: int,
    expected: tuple[int, int],
) -> None:
    """As many as model and machine allow: by the memory that there is, not by what is free at the moment."""
    header = read_header(nano)
    header.metadata["qwen2.context_length"] = trained
    monkeypatch.setattr(hardware, "total_memory", lambda: gigabytes << 30)
    monkeypatch.setattr(self_text.fit, "memory_needed", lambda shape, weights, context: context << 18)
    assert self_text._room(header) == expected


# ------------------------------------------------------------------------------------------ who can be asked


def chat_of(source: Path) -> str:
    return client.forecast(Job(str(source), hash_inputs=False)).chat


def without_r1(folder: Path, template: str = "") -> Path:
    """A checkpoint whose vocabulary has no marker of R1."""
    make_checkpoint(folder, hidden_size=64, num_hidden_layers=1)
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer.replace("<｜User｜>", "[user]"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    if template:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config).replace("<｜User｜>", "[user]"))
    return folder


def test_the_forecast_tells_how_one_talks_to_it(nano: Path, tmp_path: Path) -> None:
    assert chat_of(NANO) == R1_CHAT
    assert client.forecast(Job(str(nano), hash_inputs=False, allow_requantize=True)).chat == R1_CHAT
    assert chat_of(without_r1(tmp_path / "base")) == ""
    assert chat_of(without_r1(tmp_path / "other", TEMPLATE)) == templates.digest(TEMPLATE)


@pytest.mark.parametrize(
    ("template", "error"), [("", "has no chat template"), (TEMPLATE, "brings its own chat template")]
)
def test_who_cannot_be_asked_is_told_before_it_is_converted(
    tmp_path: Path, template: str, error: str
) -> None:
    source = without_r1(tmp_path / "m", template)
    events: list[object] = []
    job = Job(str(source), threads=1, hash_inputs=False)
    with (
        pytest.raises(UnsupportedModel, match=error),
        collected_for(job, tmp_path, FEW, events.append, lambda done, total: None),
    ):
        pass
    assert events == []
    assert names_in(tmp_path) == ["m"]


def test_a_template_that_the_user_accepted_is_asked_by(tmp_path: Path) -> None:
    source = without_r1(tmp_path / "m", TEMPLATE)
    templates.accept(TEMPLATE)
    known = client.forecast(Job(str(source), hash_inputs=False))
    self_text.require_chat(known, str(source))
    convert(source, tmp_path / "m.gguf", "F16")
    text = text_of(SelfText(400), tmp_path / "m.gguf", ONE)
    assert text.content.startswith("[user] What is 417 + 286?\n")


# ---------------------------------------------------------------------------------------------- for a job


def test_the_same_file_writes_and_is_read(nano: Path, tmp_path: Path, written: Text) -> None:
    """The checkpoint is converted once, and what comes of it is what comes of the file."""
    steps: list[str] = []

    def step(name: str) -> None:
        if steps[-1:] != [name]:
            steps.append(name)

    job = Job(str(NANO), threads=1, hash_inputs=False)
    with collected_for(
        job,
        tmp_path,
        FEW,
        lambda event: step("convert"),
        lambda done, total: step("read"),
        lambda done, total: step("write"),
    ) as made:
        found = read_imatrix(Path(made.imatrix))
        assert names_in(tmp_path) == []
    assert steps == ["convert", "write", "read"]
    assert found.datasets == (written.name,)
    expected = collect(nano, written, ONE)
    assert found.weights.keys() == expected.matrices.keys()
    for name, usage in expected.matrices.items():
        np.testing.assert_allclose(found.weights[name], usage.sums / usage.rows, rtol=1e-6, err_msg=name)


# ------------------------------------------------------------------------------------------- the choice


def test_the_choice(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a text\n")
    assert calibration().name == "built-in calibration.txt"
    assert calibration("self") == SelfText(8_192)
    assert calibration("self", 2_000) == SelfText(2_000)
    mine = str(tmp_path / "mine.txt")
    assert calibration(mine) == Text(mine, "a text", special=True)
    with pytest.raises(UsageError, match="is not a file"):
        calibration(str(tmp_path / "nothing.txt"))
    for choice in (None, mine):
        with pytest.raises(UsageError, match="for a text that the model writes"):
            calibration(choice, 2_000)
