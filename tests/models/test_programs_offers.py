"""What is made of models that were found: names, what cannot be used and why, and adding without a copy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from localai.errors import IntegrityError, ModelNotFound, StoreError, UnsupportedModel, UsageError
from models import catalog
from models.catalog import Entry, ReadyFile
from models.origins import HubFile, LocalFile, RemoteFile
from models.programs import Found
from models.programs.offers import Offer, add, addable, chosen, offers, quantize_command
from models.programs.writers import being_written
from models.store import Store

MakeModel = Callable[..., Path]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def found(path: Path, called: str = "some/model.gguf", **other: Any) -> Found:
    return Found(program="Ollama", called=called, paths=(path,), size=path.stat().st_size, **other)


def offered(store: Store, *found: Found, entries: list[Entry] | None = None, **other: Any) -> list[Offer]:
    return offers(found, store, entries or [], **other)


def entry(name: str, digest: str, file_type: str = "F32") -> Entry:
    """A catalogue entry of which a file with that digest can be had."""
    known = next(one for one in catalog.entries() if one.file)
    source = HubFile(repository="a/b", files=(RemoteFile(path="x.gguf", sha256=digest),))
    ready = (ReadyFile(type=file_type, source=source), ReadyFile(type=known.type, source=source))
    return msgspec.structs.replace(known, name=name, types=(), file=ready)


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("deepseek-r1:7b", "deepseek-r1:7b"),
        ("deepseek-r1:latest", "deepseek-r1"),
        ("hf.co/unsloth/DeepSeek-R1-GGUF:Q4_K_M", "deepseek-r1-gguf:q4_k_m"),
        ("unsloth/R1-GGUF/Q4_K_M/R1-Q4_K_M.gguf", "r1-q4_k_m"),
        ("a/b/R1 Big-00001-of-00003.gguf", "r1-big"),
        ("模型.gguf", "tiny-model"),
        ("nul", "model-nul"),
        ("x" * 500, "x" * 64),
        ("../..", "tiny-model"),
        ("", "tiny-model"),
    ],
)
def test_a_name_is_made_of_what_the_program_calls_it(
    store: Store, make_model: MakeModel, called: str, name: str
) -> None:
    assert offered(store, found(make_model(title="Tiny Model"), called))[0].name == name


def test_no_two_offers_have_one_name_and_none_that_of_another_model(
    store: Store, make_model: MakeModel
) -> None:
    store.add(make_model(seed=9), "r1:7b", source=LocalFile(path="/x"))
    same = [found(make_model(f"{seed}.gguf", seed=seed), "r1:7b") for seed in range(3)]
    long = [found(make_model(f"l{seed}.gguf", seed=seed + 5), "y" * 80) for seed in range(2)]
    names = [one.name for one in offered(store, *same, *long)]
    assert names == ["r1:7b-2", "r1:7b-3", "r1:7b-4", "y" * 64, f"{'y' * 62}-2"]


def test_the_very_file_of_a_catalogue_entry_has_its_name(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    usual = entry("r1:7b", sha256(path), next(one for one in catalog.entries() if one.file).type)
    (one,) = offered(store, found(path, sha256=sha256(path)), entries=[usual])
    assert (one.name, one.catalogue) == ("r1:7b", "r1:7b")
    (one,) = offered(store, found(path, sha256=sha256(path)), entries=[entry("r1:7b", sha256(path))])
    assert (one.name, one.catalogue) == ("r1:7b:f32", "r1:7b")
    (one,) = offered(store, found(path), entries=[usual])  # its program does not tell: nobody has looked
    assert (one.name, one.catalogue) == ("model", "")


# ----------------------------------------------------------------------------------------- what can be used


def test_a_model_that_runs_can_be_added(store: Store, make_model: MakeModel) -> None:
    (one,) = offered(store, found(make_model()))
    assert (one.type, one.architecture, one.problem, one.can_be_added) == ("F32", "llama", "", True)


def test_another_architecture_is_named_and_can_be_allowed(store: Store, make_model: MakeModel) -> None:
    path = make_model(architecture="gemma3")
    (one,) = offered(store, found(path))
    assert (one.type, one.architecture, one.can_be_added) == ("F32", "gemma3", False)
    assert one.problem.startswith("it has the architecture 'gemma3'")
    assert offered(store, found(path), allow=("gemma3",))[0].can_be_added
    with pytest.raises(UnsupportedModel, match="gemma3") as caught:
        add(one, store, [])
    assert caught.value.hint == "To try it all the same: --allow-architecture gemma3"
    (allowed,) = offered(store, found(path), allow=("gemma3",))
    assert add(allowed, store, [], allow=("gemma3",)).allowed_architecture == "gemma3"


def test_a_file_that_is_cut_off_or_no_model_cannot_be_added(store: Store, make_model: MakeModel) -> None:
    path, other = make_model(), make_model("other.gguf")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    other.write_bytes(b"\x80\x04 pickled")
    cut, pickled = offered(store, found(path), found(other))
    assert cut.problem == f"it is truncated: 1 bytes of {path.stat().st_size + 1} are missing"
    assert "pickled" in pickled.problem
    assert (cut.can_be_added, pickled.can_be_added) == (False, False)


def test_a_file_that_is_gone_meanwhile_cannot_be_added(store: Store, make_model: MakeModel) -> None:
    one = found(make_model())
    one.paths[0].unlink()
    assert "There is no file" in offered(store, one)[0].problem


@pytest.mark.skipif(not Path("/proc").exists() or os.name != "posix", reason="only Linux tells of writers")
def test_a_file_that_is_still_written_cannot_be_added(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    with path.open("r+b") as file:
        assert being_written(path)
        (one,) = offered(store, found(path))
        assert (one.problem, one.can_be_added) == ("another program is still writing it", False)
        file.write(b"GGUF")  # nobody waits for what only looked
    assert not being_written(path)
    with path.open("rb"):
        assert not being_written(path)
    assert not being_written(path.with_name("none"))


def test_what_the_search_says_is_wrong_stays_wrong(store: Store, make_model: MakeModel) -> None:
    (one,) = offered(store, found(make_model(), problem="of its 3 files, 2 are there"))
    assert (one.problem, one.can_be_added) == ("of its 3 files, 2 are there", False)


def test_a_model_in_parts_is_read_whole(store: Store, make_model: MakeModel) -> None:
    first = make_model("x-00001-of-00002.gguf", split=(0, 2))
    second = make_model("x-00002-of-00002.gguf", split=(0, 2), seed=1)
    one = Found(program="Jan", called="x", paths=(first, second), size=2)
    assert "is not part 2" in offered(store, one)[0].problem


# -------------------------------------------------------------------------------------- what is there already


def test_what_the_store_has_is_called_as_it_is_there(store: Store, make_model: MakeModel) -> None:
    path, other = make_model(), make_model("other.gguf", seed=1)
    store.add(path, "mine", source=LocalFile(path="/elsewhere"))
    known, unknown = offered(store, found(path, sha256=sha256(path)), found(other, sha256=sha256(other)))
    assert (known.name, known.stored, known.can_be_added) == ("mine", True, False)
    assert (unknown.stored, unknown.can_be_added) == (False, True)


def test_what_was_added_is_recognised_although_its_program_tells_no_digest(
    store: Store, make_model: MakeModel
) -> None:
    path = make_model()
    (one,) = offered(store, found(path))
    add(one, store, [])
    assert offered(store, found(path))[0].stored
    again = path.with_name("linked.gguf")
    again.hardlink_to(store.path(store.get(one.name)))
    assert offered(store, found(again))[0].stored
    other = make_model("other.gguf", seed=1)
    assert not offered(store, found(other))[0].stored


# ------------------------------------------------------------------------------------------------- choosing


def test_a_model_is_chosen_by_either_of_its_names(store: Store, make_model: MakeModel) -> None:
    available = offered(store, found(make_model(), "unsloth/R1-GGUF/R1.gguf"))
    assert chosen(available, "R1") is chosen(available, "unsloth/r1-gguf/r1.gguf") is available[0]
    with pytest.raises(ModelNotFound, match="No model called 'r2'") as caught:
        chosen(available, "r2")
    assert caught.value.hint == "Did you mean r1?"
    with pytest.raises(ModelNotFound, match="No model called 'zzz'") as caught:
        chosen(available, "\x1bzzz")
    assert "localai models discover" in caught.value.hint


def test_all_that_can_be_added_are_those_that_run_each_content_once(
    store: Store, make_model: MakeModel
) -> None:
    path, copy = make_model(), make_model("copy.gguf")
    other = make_model("other.gguf", architecture="gemma3")
    available = offered(
        store, found(path, sha256=sha256(path)), found(copy, sha256=sha256(copy)), found(other), found(copy)
    )
    assert addable(available) == [available[0], available[3]]


# --------------------------------------------------------------------------------------------------- adding


def test_a_model_is_added_without_a_copy(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    path.chmod(0o640)
    before = path.stat()
    (one,) = offered(store, found(path, "deepseek-r1:7b", sha256=sha256(path)))
    added = add(one, store, [])
    assert (added.name, added.sha256, added.pinned) == ("deepseek-r1:7b", sha256(path), True)
    assert added.source == LocalFile(path=str(path), program="Ollama", called="deepseek-r1:7b")
    assert added.sharing in ("reflink", "hard link")
    assert (path.stat().st_mode, path.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    path.unlink()
    store.verify(added)


def test_what_the_catalogue_knows_of_the_file_is_kept(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    known = entry("r1:7b", sha256(path))
    (one,) = offered(store, found(path, sha256=sha256(path)), entries=[known])
    added = add(one, store, [known])
    assert (added.title, added.license, added.reasoning) == (known.title, known.license, known.reasoning)


def test_a_file_with_another_digest_than_its_program_says_is_not_added(
    store: Store, make_model: MakeModel
) -> None:
    path = make_model()
    (one,) = offered(store, found(path, "r1:7b", sha256="a" * 64))
    with pytest.raises(IntegrityError, match=r"r1:7b of Ollama is damaged: .*tiny\.gguf") as caught:
        add(one, store, [])
    assert caught.value.hint == "Fetch it again with Ollama."
    assert store.manifests() == []
    assert path.exists()


def test_a_link_of_the_hub_cache_is_added_as_the_file_itself(
    store: Store, make_model: MakeModel, tmp_path: Path
) -> None:
    path, link = make_model(), tmp_path / "link.gguf"
    link.symlink_to(path)
    added = add(offered(store, found(link, sha256=sha256(path)))[0], store, [])
    assert not store.path(added).is_symlink()
    link.unlink()
    store.verify(added)


def test_a_model_in_parts_is_added_and_verified(store: Store, make_model: MakeModel) -> None:
    from models.manifest import Part, digest_of_parts

    first = make_model("x-00001-of-00002.gguf", split=(0, 2))
    second = make_model("x-00002-of-00002.gguf", split=(1, 2), prefix="other.")
    parts = (first, second)
    digest = digest_of_parts([Part(sha256(path), path.stat().st_size) for path in parts])
    size = sum(path.stat().st_size for path in parts)
    one = Found(program="Jan", called="x", paths=parts, size=size, sha256=digest)
    added = add(offered(store, one)[0], store, [])
    assert (added.sha256, len(added.parts), added.size) == (digest, 2, size)
    store.verify(added)


def test_what_cannot_be_added_says_why(store: Store, make_model: MakeModel, tmp_path: Path) -> None:
    path = make_model()
    folder = Found(program="LM Studio", called="a b", paths=(tmp_path / "a b",), size=1, kind="checkpoint")
    (one,) = offered(store, folder)
    with pytest.raises(UsageError, match="a b is a checkpoint") as usage:
        add(one, store, [])
    assert usage.value.hint == f"Quantize it: localai quantize '{tmp_path / 'a b'}'"
    assert usage.value.hint.endswith(quantize_command(folder))
    store.add(path, "mine", source=LocalFile(path="/x"))
    with pytest.raises(StoreError, match="in the store already, as mine"):
        add(offered(store, found(path, sha256=sha256(path)))[0], store, [])
    with pytest.raises(UnsupportedModel, match="cannot be added: it is cut off"):
        add(offered(store, found(make_model("b.gguf", seed=2), problem="it is cut off"))[0], store, [])
