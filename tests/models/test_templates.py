"""Which templates are known, and how the user accepts another."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from localai import paths
from localai.errors import StoreError
from models import templates
from models.catalog import builtin_checkpoint

R1 = Path(__file__).parents[1] / "data" / "r1-tokenizer"
STRANGE = "{{ messages }} strange"


def of(folder: Path) -> str:
    return str(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])


def test_the_templates_of_r1_are_known() -> None:
    early = of(R1)
    later = early.replace("{{'<｜Assistant｜>'}}", "{{'<｜Assistant｜><think>\\n'}}")
    assert later != early
    names = [
        templates.R1[templates.digest(text)] for text in (early, later, of(builtin_checkpoint("r1-nano")))
    ]
    assert names == ["DeepSeek-R1, January 2025", "DeepSeek-R1, February 2025", "r1-nano"]


def test_a_line_break_at_the_end_is_no_other_template() -> None:
    assert templates.digest("a\n") == templates.digest("a")
    assert len({templates.digest(text) for text in ("a", "a\n\n", "a ", "b")}) == 4


def test_the_starters_template_runs_without_a_question() -> None:
    first = "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"  # noqa: E501
    each = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    last = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    source = "{% for message in messages %}" + first + each + "{% endfor %}" + last
    assert templates.READ[templates.digest(source)] == "SmolLM2"
    assert templates.may_run(source, ())
    assert not templates.may_run(source.replace("SmolLM", "SmolLm"), ())


def test_a_template_is_accepted_once_and_can_be_forgotten() -> None:
    assert not templates.is_accepted(STRANGE)
    assert not templates.may_run(STRANGE, templates.accepted())
    templates.accept(STRANGE)
    templates.accept(STRANGE)
    assert templates.is_accepted(STRANGE)
    assert templates.accepted() == (templates.digest(STRANGE),)
    assert templates.may_run(STRANGE, templates.accepted())
    assert not templates.may_run(STRANGE + " changed", templates.accepted())
    assert templates.forget(STRANGE)
    assert not templates.forget(STRANGE)
    assert not templates.may_run(STRANGE, templates.accepted())


def test_what_is_accepted_is_private_and_anything_else_in_the_folder_is_nothing() -> None:
    templates.accept(STRANGE)
    folder = paths.config_dir() / "accepted-templates"
    (folder / "notes.txt").write_text("x")
    assert [len(name) for name in templates.accepted()] == [64]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.read_bytes() for path in folder.iterdir() if path.name != "notes.txt"] == [b""]


def test_a_folder_that_cannot_be_written_is_one_error() -> None:
    paths.config_dir().write_text("in the way")
    assert templates.accepted() == ()
    for write in (templates.accept, templates.forget):
        with pytest.raises(StoreError, match="cannot be written"):
            write(STRANGE)


def test_the_refusal_says_how_to_see_it_and_how_to_accept_it() -> None:
    error = templates.refused(Path("/models/my model.gguf"))
    assert error.message == ("/models/my model.gguf brings its own chat template, which nobody here has read")
    assert "localai models show '/models/my model.gguf' --template" in error.hint
    assert "localai models accept '/models/my model.gguf'" in error.hint


def test_what_is_invisible_is_shown_as_its_number() -> None:
    assert templates.shown("a\n\u202eb\x1b[2J\u200b\U000e0041é\t") == (
        "a\n\\u202eb\\u001b[2J\\u200b\\U000e0041é\\u0009"
    )
