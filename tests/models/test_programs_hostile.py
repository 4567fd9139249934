"""Folders of other programs may hold anything: only a model is ever meant, and nothing ends the search."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models.programs import Found, find, reading

MakeModel = Callable[..., Path]
COMMIT = "a" * 40


@pytest.fixture
def user(tmp_path: Path) -> Path:
    folder = tmp_path / "user"
    folder.mkdir()
    return folder


@pytest.fixture
def seen(user: Path, tmp_path: Path) -> Callable[..., list[Found]]:
    """`seen(NAME=value)` is what is found with that environment."""

    def look(**environ: object) -> list[Found]:
        return find({key: str(value) for key, value in environ.items()}, user, "linux", root=tmp_path / "no")

    return look


def manifest(user: Path, digest: object, *, size: object = 10, name: str = "host/space/model/tag") -> Path:
    path = user / ".ollama/models/manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": size}
    path.write_text(json.dumps({"layers": [layer]}))
    return path


SECRET = "0123456789"

DIGESTS = [
    "",
    "sha256:",
    "sha256:../../../../secret",
    "../../../secret",
    "sha256-../../../secret",
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "sha256:" + "g" * 64,
    "sha256:" + "a" * 64 + "/../../../../secret",
    "sha256:" + "a" * 64 + "\n",
    "sha256:" + "a" * 64 + "\0",
    "SHA256:" + "a" * 64,
    "md5:" + "a" * 64,
    "sha256:/" + "a" * 63,
    "sha256:..\\..\\..\\secret",
    "sha256:C:\\secret",
    "sha256:\\\\host\\share",
    "sha256:" + "٠" * 64,
    "sha256:" + "ａ" * 64,
    "/etc/passwd",
    "sha256:%2e%2e%2fsecret",
    7,
    None,
    ["sha256:" + "a" * 64],
    {"sha256": "a" * 64},
]


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_digest_is_a_digest_or_it_is_refused(
    seen: Callable[..., list[Found]], user: Path, digest: object
) -> None:
    (user / "secret").write_text(SECRET)
    (user / ".ollama/models/blobs").mkdir(parents=True)
    manifest(user, digest)
    assert seen() == []


@pytest.mark.parametrize("target", ["secret", "../../../secret", "/etc/passwd", "/dev/zero", "."])
def test_a_blob_that_is_a_link_is_no_blob(seen: Callable[..., list[Found]], user: Path, target: str) -> None:
    (user / "secret").write_text(SECRET)
    blob = user / ".ollama/models/blobs" / f"sha256-{'a' * 64}"
    blob.parent.mkdir(parents=True)
    blob.symlink_to(target)
    manifest(user, f"sha256:{'a' * 64}")
    assert [one.problem for one in seen()] == ["its file is missing"]


def test_a_manifest_that_is_a_link_out_of_the_blobs_is_not_read(
    seen: Callable[..., list[Found]], user: Path
) -> None:
    real = manifest(user, f"sha256:{'a' * 64}")
    (user / ".ollama/models/blobs").mkdir()
    assert len(seen()) == 1
    real.rename(user / "manifest")
    real.symlink_to(user / "manifest")
    assert seen() == []


GARBAGE = [
    b"",
    b"\0" * 100,
    b"[" * 60_000,
    b"{a: " * 15_000,
    b'{"layers":' * 5_000,
    b'{"layers": {}}',
    b'{"layers": [1]}',
    b'{"layers": null, "manifests": [null]}',
    b'{"mediaType": "application/vnd.ollama.manifest.list.v2+json", "manifests": [{"manifests": []}]}',
    b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "\xff\xfe"}]}',
    b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "\\ud800"}]}',
    b"null",
    b"true",
    b" " * (5 << 20),
    b"!!python/object/apply:os.system ['true']",
    b"a: &a [x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nmodel_path: *c\n",
    b"model_path: 2001-99-99\n",
    b"model_path: [x\n",
    b"? {",
]


@pytest.mark.parametrize("data", GARBAGE)
def test_garbage_in_the_place_of_settings_is_nothing(
    seen: Callable[..., list[Found]], user: Path, data: bytes
) -> None:
    places = [
        ".ollama/models/manifests/h/n/m/t",
        ".lmstudio-home-pointer",
        ".lmstudio/settings.json",
        ".config/nomic.ai/GPT4All.ini",
        ".local/share/Jan/settings.json",
        ".local/share/Jan/data/llamacpp/models/x/model.yml",
        ".cache/huggingface/hub/models--a--b/refs/main",
        ".lmstudio/models/a/b/config.json",
        ".lmstudio/models/a/b/model.safetensors.index.json",
    ]
    for place in places:
        (user / place).parent.mkdir(parents=True, exist_ok=True)
        (user / place).write_bytes(data)
    (user / ".lmstudio/models/a/b/model.safetensors").write_bytes(b"1")
    assert [one.problem for one in seen()] == ["its config.json does not name an architecture"]


@pytest.mark.parametrize("make", ["folder", "pipe", "device", "circle", "unreadable"])
def test_what_is_no_file_in_the_place_of_settings_and_models_is_not_waited_for(
    seen: Callable[..., list[Found]], user: Path, make: str
) -> None:
    for place in [
        ".lmstudio-home-pointer",
        ".lmstudio/settings.json",
        ".lmstudio/models/a/b/x.gguf",
        ".config/nomic.ai/GPT4All.ini",
        ".cache/gpt4all/x.gguf",
        ".cache/llama.cpp/x.gguf",
        ".local/share/Jan/data/llamacpp/models/x/model.yml",
        f".cache/huggingface/hub/models--a--b/snapshots/{COMMIT}/x.gguf",
        ".ollama/models/manifests/h/n/m/t",
    ]:
        path = user / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if make == "folder":
            path.mkdir()
        elif make == "pipe":
            os.mkfifo(path)
        elif make == "device":
            path.symlink_to("/dev/zero")
        elif make == "circle":
            path.symlink_to(path.name)
        else:
            path.symlink_to("/proc/self/mem")
    if make == "unreadable":  # /proc says that its files are regular, and empty
        assert {one.size for one in seen()} == {0}
    else:
        assert seen() == []


@pytest.mark.parametrize(
    "value", ["", "relative", "\0", "/" + "x" * 5000, "/\ud800", "/" + "y" * 300, "~someone/x", "/dev/null"]
)
def test_folders_that_cannot_be_are_not_looked_into(
    seen: Callable[..., list[Found]], user: Path, value: str
) -> None:
    variables = ["OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE", "XDG_CACHE_HOME", "XDG_DATA_HOME"]
    assert seen(**dict.fromkeys([*variables, "JAN_DATA_FOLDER", "JAN_DATA_ROOT"], value)) == []
    (user / ".lmstudio").mkdir()
    (user / ".lmstudio/settings.json").write_text(json.dumps({"downloadsFolder": value}))
    assert seen() == []


@pytest.mark.parametrize(
    "path",
    [
        "../../../../secret.gguf",
        "llamacpp/../../../../../secret.gguf",
        "x/../../../../../secret.gguf",
        "\0.gguf",
    ],
)
def test_a_model_of_jan_is_in_its_folder_unless_its_path_is_whole(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel, path: str
) -> None:
    make_model().rename(user / "secret.gguf")
    described = user / ".local/share/Jan/data/llamacpp/models/x/model.yml"
    described.parent.mkdir(parents=True)
    described.write_text(f"model_path: {json.dumps(path)}\n")
    assert seen() == []


@pytest.mark.parametrize(
    "target", ["secret.gguf", "../../../../../../../secret.gguf", "../../../../blobs/none", "/etc/passwd"]
)
def test_a_link_out_of_the_cache_of_the_hub_is_not_followed(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel, target: str
) -> None:
    make_model().rename(user / "secret.gguf")
    link = user / ".cache/huggingface/hub/models--a--b/snapshots" / COMMIT / "x.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(user / target if target == "secret.gguf" else target)
    assert seen() == []


def test_the_name_of_a_file_that_is_no_blob_is_no_digest(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    cache = user / ".cache/huggingface/hub"
    link = cache / "models--a--b/snapshots" / COMMIT / "x.gguf"
    link.parent.mkdir(parents=True)
    elsewhere = cache / ("f" * 64)
    make_model().rename(elsewhere)
    link.symlink_to(f"../../../{elsewhere.name}")
    assert [(one.paths, one.sha256) for one in seen()] == [((link,), "")]


def test_folders_that_are_links_are_not_entered(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    models = user / ".lmstudio/models/a"
    models.mkdir(parents=True)
    (user / "other").mkdir()
    make_model().rename(user / "other/x.gguf")
    (models / "linked").symlink_to(user / "other")
    (models / "round").symlink_to(models)
    assert seen() == []


def test_the_search_ends_although_folders_are_deep_and_full(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    models = user / ".cache/gpt4all"
    make_model().rename(_made(models) / "found.gguf")
    deep = models.joinpath(*["d"] * 40)
    make_model(seed=1).rename(_made(deep) / "deep.gguf")
    assert [one.called for one in seen()] == ["found.gguf"]
    full = _made(models / "a")
    for number in range(100):
        (full / f"{number:03}").touch()
    budget = reading.Budget(50)
    assert len(list(reading.files_below(models, budget))) <= 50
    assert budget.entries == 0


def test_parts_without_end_are_counted_and_not_looked_for(
    seen: Callable[..., list[Found]], user: Path
) -> None:
    folder = _made(user / ".cache/gpt4all")
    for number in range(1, 400):
        (folder / f"x{number}-00001-of-00999.gguf").touch()
    (folder / "x-00001-of-99999.gguf").touch()
    (folder / "y-00005-of-00002.gguf").touch()
    start = time.monotonic()
    problems = [one.problem for one in seen()]
    assert problems.count("of its 999 files, 1 are there") == 399
    assert len(problems) == 401
    assert time.monotonic() - start < 5


def test_names_that_are_no_text_or_would_command_the_terminal_do_no_harm(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    folder = _made(user / ".cache/gpt4all")
    make_model(seed=1).rename(folder / "\x1b]0;owned\x07\nx.gguf")
    make_model(seed=2).rename(os.fsdecode(os.fsencode(folder) + b"/\xff.gguf"))
    assert [one.called for one in seen()] == ["]0;owned x.gguf"]


def test_settings_that_are_damaged_at_random_never_end_the_search(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    model = make_model()
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    good = manifest(user, f"sha256:{digest}", size=model.stat().st_size)
    blobs = _made(user / ".ollama/models/blobs")
    model.rename(blobs / f"sha256-{digest}")
    text = good.read_bytes()
    random_bytes = random.Random(6)
    for _ in range(300):
        data = bytearray(text)
        for _ in range(random_bytes.randint(1, 8)):
            data[random_bytes.randrange(len(data))] = random_bytes.randrange(256)
        good.write_bytes(data)
        for one in seen():
            assert one.paths[0].parent == blobs


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_that_may_not_be_read_are_passed_over(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    make_model().rename(_made(user / ".cache/gpt4all") / "x.gguf")
    closed = _made(user / ".lmstudio/models")
    closed.chmod(0)
    try:
        assert [one.called for one in seen()] == ["x.gguf"]
    finally:
        closed.chmod(0o700)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
