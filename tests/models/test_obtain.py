"""Getting models by name: the real fetch process against a hub on the loopback, into a real store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from localai.errors import (
    FetchError,
    IntegrityError,
    ModelFileError,
    ModelNotFound,
    NoSpace,
    StoreError,
    UnsupportedModel,
    UsageError,
)
from models import catalog
from models.fetch.protocol import Search
from models.header import Header
from models.origins import About, HubCheckpoint, HubFile, LocalFile, RemoteFile, UrlFile
from models.sources import Plan, Request, asked, checkpoint, obtain
from models.store import Store
from tests.hub_server import Fault, HubServer, Repository

MakeModel = Callable[..., Path]

OWNER = "acme/Tiny-GGUF"


class Hooks:
    """Remembers what it was told."""

    def __init__(self, stop_at: str = "") -> None:
        self.plans: list[Plan] = []
        self.headers: list[Header] = []
        self.notes: list[str] = []
        self._stop_at = stop_at

    def plan(self, plan: Plan) -> None:
        self.plans.append(plan)
        self._stop("plan")

    def header(self, header: Header) -> None:
        self.headers.append(header)
        self._stop("header")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def _stop(self, place: str) -> None:
        if self._stop_at == place:
            raise KeyboardInterrupt


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def repository(hub: HubServer, make_model: MakeModel) -> Repository:
    return hub.add_repository(OWNER, {"Tiny-F32.gguf": make_model(rows=400).read_bytes(), "README.md": b"x"})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pinned(repository: Repository, path: str = "Tiny-F32.gguf", **more: object) -> HubFile:
    content = repository.file(path).content
    file = RemoteFile(path=path, size=len(content), sha256=sha256(content))
    return HubFile(repository=OWNER, revision=repository.head, files=(msgspec.structs.replace(file, **more),))


def unseen(repository: Repository, revision: str = "") -> HubFile:
    """Nobody has seen its digest yet."""
    return HubFile(repository=OWNER, revision=revision, files=(RemoteFile(path="Tiny-F32.gguf"),))


def test_a_file_comes_verified_with_its_commit(hub: HubServer, repository: Repository, store: Store) -> None:
    hooks = Hooks()
    request = Request(name="tiny", sources=(pinned(repository),), about=About(title="Tiny R1", license="MIT"))
    manifest, downloaded = obtain(request, store, hooks=hooks)
    assert downloaded
    assert store.get("tiny") == manifest
    assert isinstance(manifest.source, HubFile)
    assert manifest.source.revision == repository.head
    assert (manifest.title, manifest.license, manifest.pinned) == ("Tiny R1", "MIT", True)
    store.verify(manifest)
    assert [plan.resolved.total for plan in hooks.plans] == [manifest.size]
    assert [header.name for header in hooks.headers] == ["Tiny"]
    assert store.unfinished() == []
    assert list((store.root / "incoming").iterdir()) == []


def test_what_is_there_is_not_fetched_again(hub: HubServer, repository: Repository, store: Store) -> None:
    request = Request(name="tiny", sources=(pinned(repository),))
    first = obtain(request, store).manifest
    asked_before = len(hub.requests)
    assert obtain(request, store) == (first, False)
    other = obtain(msgspec.structs.replace(request, name="tiny:f32"), store)
    assert (other.manifest.name, other.manifest.sha256, other.downloaded) == ("tiny:f32", first.sha256, False)
    store.remove("tiny")
    store.remove("tiny:f32")
    assert obtain(request, store).downloaded is False, "a removed model's bytes are still there"
    assert len(hub.requests) == asked_before, "nobody is asked"


def test_a_damaged_copy_is_fetched_anew(hub: HubServer, repository: Repository, store: Store) -> None:
    request = Request(name="tiny", sources=(pinned(repository),))
    path = store.path(obtain(request, store).manifest)
    path.chmod(0o600)
    path.write_bytes(b"short")
    again = obtain(request, store)
    assert again.downloaded
    store.verify(again.manifest)


def test_an_unseen_digest_is_pinned_at_the_first_fetch(
    hub: HubServer, repository: Repository, store: Store, make_model: MakeModel
) -> None:
    request = Request(name="tiny", sources=(unseen(repository),))
    first = obtain(request, store).manifest
    assert isinstance(first.source, HubFile)
    assert first.source.revision == repository.head, "the branch became a commit"
    assert {pin.sha256 for pin in store.pins.all().values()} == {first.sha256}
    store.remove("tiny")
    store.prune()
    other = make_model("other.gguf", seed=9).read_bytes()
    repository.commit({"Tiny-F32.gguf": other})
    with pytest.raises(IntegrityError, match=r"is another file than on .* --accept-change"):
        obtain(request, store)
    assert store.manifests() == []
    changed = obtain(msgspec.structs.replace(request, accept_change=True), store).manifest
    assert changed.sha256 == sha256(other)
    store.remove("tiny")
    store.prune()
    assert obtain(request, store).manifest.sha256 == sha256(other), "the new one is pinned now"


def test_a_file_replaced_under_a_pinned_commit_is_refused(
    hub: HubServer, repository: Repository, store: Store
) -> None:
    wrong = pinned(repository, sha256="0" * 64)
    with pytest.raises(IntegrityError, match="0000"):
        obtain(Request(name="tiny", sources=(wrong,)), store)
    assert store.manifests() == []


def test_another_source_is_tried_where_one_has_it_no_longer(
    hub: HubServer, repository: Repository, store: Store
) -> None:
    gone = msgspec.structs.replace(pinned(repository), repository="acme/gone")
    hooks = Hooks()
    found = obtain(Request(name="tiny", sources=(gone, pinned(repository))), store, hooks=hooks)
    assert found.downloaded
    assert len(hooks.notes) == 1
    assert "trying another source" in hooks.notes[0]
    hub.add_repository("acme/gated", {"Tiny-F32.gguf": b"x"}, gated=True)
    gated = HubFile(repository="acme/gated", files=(RemoteFile(path="Tiny-F32.gguf"),))
    store.remove("tiny")
    store.prune()
    assert obtain(Request(name="tiny", sources=(gated, pinned(repository))), store).downloaded
    with pytest.raises(FetchError, match="may not be fetched"):
        obtain(Request(name="other", sources=(gated,)), store)
    unknown = msgspec.structs.replace(gone, files=(RemoteFile(path="Tiny-F32.gguf"),))
    with pytest.raises(ModelNotFound):
        obtain(Request(name="other", sources=(unknown,)), store)


def test_what_does_not_run_is_refused_by_its_header(
    hub: HubServer, store: Store, make_model: MakeModel
) -> None:
    content = make_model("g.gguf", architecture="gemma3").read_bytes()
    repository = hub.add_repository(OWNER, {"Tiny-F32.gguf": content})
    hooks = Hooks()
    request = Request(name="tiny", sources=(pinned(repository),))
    with pytest.raises(UnsupportedModel, match="gemma3"):
        obtain(request, store, hooks=hooks)
    assert hooks.headers == []
    manifest = obtain(msgspec.structs.replace(request, allow=("gemma3",)), store).manifest
    assert manifest.allowed_architecture == "gemma3"


def test_space_is_checked_before_anything_comes(
    hub: HubServer, repository: Repository, tmp_path: Path
) -> None:
    store = Store(tmp_path / "full", free_space=lambda _: 1000)
    with pytest.raises(NoSpace):
        obtain(Request(name="tiny", sources=(pinned(repository),)), store)
    assert hub.bytes_sent == 0


@pytest.mark.parametrize("place", ["plan", "header"])
def test_whoever_hears_of_it_can_stop_it(
    hub: HubServer, repository: Repository, store: Store, place: str
) -> None:
    request = Request(name="tiny", sources=(pinned(repository),))
    with pytest.raises(KeyboardInterrupt):
        obtain(request, store, hooks=Hooks(stop_at=place))
    assert store.manifests() == []
    obtain(request, store)
    store.verify(store.get("tiny"))


def test_an_interrupted_fetch_goes_on(hub: HubServer, store: Store, make_model: MakeModel) -> None:
    content = make_model("large.gguf", rows=40_000).read_bytes()
    repository = hub.add_repository(OWNER, {"Tiny-F32.gguf": content})
    request = Request(name="tiny", sources=(pinned(repository),))

    def stop(step: str, done: int, total: int) -> None:
        if done > len(content) // 4 and done < total:
            raise KeyboardInterrupt

    hub.plan(Fault(role="cdn", stall_after=1000, skip=4, times=99))
    with pytest.raises(KeyboardInterrupt):
        obtain(request, store, stop)
    (left,) = store.unfinished()
    assert (left.name, left.total, left.running) == ("tiny", len(content), False)
    assert left.arrived > len(content) // 4
    hub.plan()
    hooks = Hooks()
    obtain(request, store, hooks=hooks)
    store.verify(store.get("tiny"))
    assert hooks.plans[0].arrived > len(content) // 4
    assert hub.bytes_sent < 1.6 * len(content)
    assert store.unfinished() == []


def test_a_model_in_parts(hub: HubServer, store: Store, make_model: MakeModel) -> None:
    names = [f"q/Tiny-F32-0000{number}-of-00002.gguf" for number in (1, 2)]
    contents = {
        name: make_model(Path(name).name, split=(number, 2), seed=number, prefix="b." * number).read_bytes()
        for number, name in enumerate(names)
    }
    repository = hub.add_repository(OWNER, contents)
    remote = tuple(
        RemoteFile(path=name, size=len(content), sha256=sha256(content)) for name, content in contents.items()
    )
    source = HubFile(repository=OWNER, revision=repository.head, files=remote)
    manifest = obtain(Request(name="tiny", sources=(source,)), store).manifest
    assert [part.sha256 for part in manifest.parts] == [file.sha256 for file in remote]
    store.verify(manifest)
    assert obtain(Request(name="again", sources=(source,)), store).downloaded is False


def test_a_repository_that_no_catalogue_knows(hub: HubServer, repository: Repository, store: Store) -> None:
    request = asked.on_the_hub(f"{OWNER}:f32", None, None)
    assert request.name == "tiny:f32"
    manifest = obtain(request, store).manifest
    assert isinstance(manifest.source, HubFile)
    assert manifest.source.revision == repository.head
    with pytest.raises(ModelNotFound, match="F32"):
        obtain(asked.on_the_hub(f"{OWNER}:q8_0", None, None), store)


def test_an_address(hub: HubServer, store: Store, make_model: MakeModel) -> None:
    content = make_model().read_bytes()
    url = hub.add_file("dir/My Model-Q8_0.gguf", content)
    with pytest.raises(UsageError, match="needs its digest"):
        asked.at_address(url, None, None)
    request = asked.at_address(url, None, sha256(content))
    assert request.name == "my-model-q8_0"
    assert obtain(request, store).manifest.source == UrlFile(
        url=url, sha256=sha256(content), size=len(content)
    )
    with pytest.raises(IntegrityError):
        obtain(asked.at_address(url, "other", "0" * 64), store)
    assert [model.name for model in store.manifests()] == ["my-model-q8_0"]


@pytest.mark.parametrize(
    "words", ["a/b/c", "a/b:nothing", "/b", "a b/c", "a/b:Q4_K_M:x", "../..", "a/..", ".a/b", "a/b\n"]
)
def test_words_that_are_no_repository(words: str) -> None:
    with pytest.raises(UsageError):
        asked.on_the_hub(words, None, None)


def test_the_words_for_a_repository() -> None:
    request = asked.on_the_hub("bartowski/R1-GGUF:q4_k_m@main", None, None)
    source = Search(repository="bartowski/R1-GGUF", revision="main", type="Q4_K_M")
    assert (request.name, request.sources) == ("r1:q4_k_m", (source,))
    assert asked.on_the_hub("a/b", "mine", "x/y.gguf").sources == (Search(repository="a/b", path="x/y.gguf"),)
    assert [asked.is_name(text) for text in ("r1:7b", "a/b", "https://x/y", "r1:7b:q8_0")] == [
        True,
        False,
        False,
        True,
    ]


def test_a_type_that_nobody_has_ready() -> None:
    wanted = catalog.wanted("r1:7b:q5_k_s")
    with pytest.raises(ModelNotFound, match=r"not ready-made as Q5_K_S.*--from-source"):
        asked.by_name(wanted, None)


def test_a_checkpoint_and_its_commit(hub: HubServer, store: Store) -> None:
    folder = catalog.builtin_checkpoint("r1-nano")
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".py"}
    repository = hub.add_repository("acme/nano", {**contents, "evil.bin": b"pickle"})
    source = HubCheckpoint(repository="acme/nano")
    with checkpoint("nano", source, store) as (root, found):
        assert found.revision == repository.head
        assert json.loads((root / "config.json").read_text())["num_hidden_layers"] > 0
        assert not (root / "evil.bin").exists()
        assert (root / "model.safetensors").read_bytes() == contents["model.safetensors"]
    assert not root.exists()
    with pytest.raises(ValueError, match="stop"), checkpoint("nano", source, store) as (root, _):
        raise ValueError("stop")
    assert (root / "model.safetensors").is_file(), "after a failure nothing has to be fetched again"


def test_looking_changes_nothing(
    hub: HubServer, repository: Repository, store: Store, make_model: MakeModel
) -> None:
    older = HubFile(repository=OWNER, files=(RemoteFile(path="older.gguf"),))
    other = store.add(make_model("other.gguf", seed=5), "tiny", source=older)
    copy = make_model("copy.gguf")
    copy.write_bytes(repository.file("Tiny-F32.gguf").content)
    store.add(copy, "copy", source=UrlFile(url="http://x/z", sha256="0" * 64))
    before = store.manifests()
    request = Request(name="tiny", sources=(pinned(repository),), look_only=True)
    assert obtain(request, store).downloaded is False
    store.remove("copy")
    store.prune()
    with pytest.raises(KeyboardInterrupt):
        obtain(request, store, hooks=Hooks(stop_at="header"))
    assert store.manifests() == [other]
    assert len(before) == 2
    assert store.unfinished() == []


def test_what_pins_refuse_is_not_taken_from_the_store_either(
    hub: HubServer, repository: Repository, store: Store, make_model: MakeModel
) -> None:
    request = Request(name="tiny", sources=(unseen(repository),))
    first = obtain(request, store).manifest
    other = make_model("other.gguf", seed=9)
    store.add(other, "three", source=UrlFile(url="http://x/y", sha256="0" * 64))
    repository.commit({"Tiny-F32.gguf": other.read_bytes()})
    with pytest.raises(IntegrityError, match="is another file"):
        obtain(request, store)
    assert store.get("tiny") == first
    store.verify(first)


def test_damage_is_repaired_although_the_size_is_right(
    hub: HubServer, repository: Repository, store: Store
) -> None:
    request = Request(name="tiny", sources=(pinned(repository),))
    path = store.path(obtain(request, store).manifest)
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = obtain(request, store)
    assert again.downloaded
    store.verify(again.manifest)


def test_what_the_user_made_is_not_replaced(
    hub: HubServer, repository: Repository, store: Store, make_model: MakeModel
) -> None:
    mine = store.add(make_model("mine.gguf", seed=3), "tiny", source=LocalFile(path="/mine"))
    with pytest.raises(StoreError, match=r"called tiny already \(file: /mine\)"):
        obtain(Request(name="tiny", sources=(pinned(repository),)), store)
    assert store.manifests() == [mine]
    assert hub.requests == []


def test_the_digest_that_the_user_gives_must_be_met(
    hub: HubServer, repository: Repository, store: Store
) -> None:
    with pytest.raises(IntegrityError, match="and not 0000"):
        obtain(asked.on_the_hub(OWNER, None, None, "0" * 64), store)
    right = sha256(repository.file("Tiny-F32.gguf").content)
    assert obtain(asked.on_the_hub(OWNER, None, None, right), store).manifest.pinned
    with pytest.raises(UsageError, match="64 hex digits"):
        asked.on_the_hub(OWNER, None, None, "abc")


def test_a_checkpoint_without_a_commit_is_pinned_at_its_first_fetch(hub: HubServer, store: Store) -> None:
    folder = catalog.builtin_checkpoint("r1-nano")
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".py"}
    repository = hub.add_repository("acme/nano", contents)
    with checkpoint("nano", HubCheckpoint(repository="acme/nano"), store):
        pass
    changed = bytearray(contents["model.safetensors"])
    changed[-1] ^= 1
    repository.commit({**contents, "model.safetensors": bytes(changed)})
    with (
        pytest.raises(IntegrityError, match="is another file than on"),
        checkpoint("nano", HubCheckpoint(repository="acme/nano"), store),
    ):
        pass


def test_a_model_from_another_place_is_not_replaced_but_by_the_catalogue(
    hub: HubServer, repository: Repository, store: Store, make_model: MakeModel
) -> None:
    elsewhere = HubFile(repository="other/Tiny-GGUF", files=(RemoteFile(path="x.gguf"),))
    first = store.add(make_model("other.gguf", seed=5), "tiny", source=elsewhere)
    request = Request(name="tiny", sources=(pinned(repository),))
    with pytest.raises(StoreError, match=r"called tiny already \(hub: other/Tiny-GGUF"):
        obtain(request, store)
    obtain(msgspec.structs.replace(request, catalogued=True), store)
    store.rename("tiny", "new")
    assert store.restore("tiny") == first


def test_a_hub_that_tells_no_digest_does_not_get_by_for_that(
    hub: HubServer, repository: Repository, store: Store, make_model: MakeModel
) -> None:
    request = Request(name="tiny", sources=(unseen(repository),))
    obtain(request, store)
    store.remove("tiny")
    store.prune()
    repository.commit({"Tiny-F32.gguf": make_model("other.gguf", seed=9).read_bytes()}, lfs=[])
    with pytest.raises(IntegrityError, match="is another file"):
        obtain(request, store)
    assert store.manifests() == []


def test_names_that_promise_parts_which_are_none(
    hub: HubServer, store: Store, make_model: MakeModel, tmp_path: Path
) -> None:
    names = [f"Tiny-F32-0000{number}-of-00002.gguf" for number in (1, 2)]
    contents = {name: make_model(name, seed=number).read_bytes() for number, name in enumerate(names)}
    repository = hub.add_repository(OWNER, contents)
    remote = tuple(RemoteFile(path=name) for name in names)
    source = HubFile(repository=OWNER, revision=repository.head, files=remote)
    with pytest.raises(ModelFileError, match=r"Tiny-GGUF.*its model is in 1 files, and its name says 2"):
        obtain(Request(name="tiny", sources=(source,)), store)
    assert store.unfinished() == [], "to go on would help nobody"
    with pytest.raises(ModelFileError, match="named as part 1 of 2"):
        store.add(make_model(names[0]), "tiny", source=LocalFile(path="x"))


def test_the_hubs_own_ways_to_write_a_repository() -> None:
    for text in ("hf.co/a/b:q8_0", "https://huggingface.co/a/b:q8_0", "huggingface.co/a/b:q8_0/"):
        assert asked.tidied(text) == "a/b:q8_0"
    assert asked.tidied("https://huggingface.co/a/b/resolve/main/x.gguf").startswith("https://")
    for text in ("./x.gguf", "/x/y", "~/x", "x.gguf"):
        with pytest.raises(UsageError, match="localai models import"):
            asked.tidied(text)


def test_a_password_in_an_address_is_not_written_down(
    hub: HubServer, store: Store, make_model: MakeModel
) -> None:
    content = make_model().read_bytes()
    url = hub.add_file("x.gguf", content).replace("://", "://joe:s3cret@")
    obtain(asked.at_address(url, "one", sha256(content)), store)
    obtain(asked.at_address(url, "two", sha256(content)), store)
    written = b"".join(path.read_bytes() for path in store.root.rglob("*.json"))
    assert b"s3cret" not in written


def test_a_hub_that_gives_no_answer_is_asked_once(
    repository: Repository, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    hooks = Hooks()
    sources = (pinned(repository), pinned(repository), pinned(repository))
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:1"):
        obtain(Request(name="tiny", sources=sources), store, hooks=hooks)
    assert hooks.notes == []
