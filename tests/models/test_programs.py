"""What other programs hold is found where each keeps it: their real layouts, with tiny real models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localai.errors import UsageError
from models.manifest import Part, digest_of_parts
from models.programs import PROGRAMS, Found, find, program
from models.programs.checkpoints import CONVERTIBLE
from quantize.architectures import FAMILIES

MakeModel = Callable[..., Path]
Put = Callable[..., Path]

COMMIT, OLDER = "a" * 40, "b" * 40


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The home of somebody who has other programs."""
    folder = tmp_path / "user"
    folder.mkdir()
    return folder


@pytest.fixture
def put(make_model: MakeModel) -> Put:
    """`put(path, seed)` places a tiny model there; others of that seed have the same bytes."""

    def place(path: Path, seed: int = 0, **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        return make_model(seed=seed, **options).rename(path)

    return place


@pytest.fixture
def seen(user: Path, tmp_path: Path) -> Callable[..., list[Found]]:
    """`seen(NAME=value)` is what is found with that environment."""
    system = tmp_path / "system"

    def look(platform: str = "linux", **environ: object) -> list[Found]:
        named = {name: str(value) for name, value in environ.items()}
        return find(named, user, platform, root=system)

    return look


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(found: list[Found]) -> list[tuple[str, str]]:
    return [(one.program, one.called) for one in found]


# --------------------------------------------------------------------------------------------------- Ollama


def layer(kind: str, path: Path, **other: object) -> dict[str, object]:
    known = {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{sha256(path)}"}
    return {**known, "size": path.stat().st_size, **other}


def ollama(root: Path, name: str, model: Path, *others: dict[str, object], v2: bool = False) -> Path:
    """Ollama's model `name`, HOST/NAMESPACE/MODEL/TAG, with `model` moved to its blobs."""
    blobs = root / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    first = layer("model", model)
    manifest = {"schemaVersion": 2, "config": {}, "layers": [first, *others]}
    blob = model.replace(blobs / f"sha256-{sha256(model)}")
    data = json.dumps(manifest).encode()
    path = root / ("manifests-v2" if v2 else "manifests") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if v2:
        stored = blobs / f"sha256-{hashlib.sha256(data).hexdigest()}"
        stored.write_bytes(data)
        path.symlink_to(stored)
    else:
        path.write_bytes(data)
    return blob


R1 = "registry.ollama.ai/library/deepseek-r1/7b"


def test_ollama_in_the_home(seen: Callable[..., list[Found]], user: Path, make_model: MakeModel) -> None:
    model, template = make_model(), user / "template"
    digest, size = sha256(model), model.stat().st_size
    template.write_text("{{ .Prompt }}")
    blob = ollama(user / ".ollama/models", R1, model, layer("template", template))
    (user / f".ollama/models/blobs/sha256-{'c' * 64}-partial").write_bytes(b"GGUF")
    assert seen() == [
        Found(program="Ollama", called="deepseek-r1:7b", paths=(blob,), size=size, sha256=digest)
    ]


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("registry.ollama.ai/library/r1/latest", "r1:latest"),
        ("registry.ollama.ai/someone/r1/q4_K_M", "someone/r1:q4_K_M"),
        ("hf.co/unsloth/DeepSeek-R1-GGUF/Q4_K_M", "hf.co/unsloth/DeepSeek-R1-GGUF:Q4_K_M"),
    ],
)
def test_what_ollama_calls_a_model(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel, name: str, called: str
) -> None:
    ollama(user / ".ollama/models", name, make_model())
    assert names(seen()) == [("Ollama", called)]


def test_ollama_in_the_folder_of_the_environment_and_of_the_system(
    seen: Callable[..., list[Found]], user: Path, tmp_path: Path, make_model: MakeModel
) -> None:
    ollama(user / "elsewhere", R1, make_model(seed=1))
    for number, folder in enumerate(
        ["usr/share/ollama/.ollama/models", "var/lib/ollama", "var/lib/ollama/models"], start=2
    ):
        ollama(tmp_path / "system" / folder, f"{R1}-{number}", make_model(seed=number))
    named = seen(OLLAMA_MODELS=f'"{user / "elsewhere"}"')
    assert {called for _, called in names(named)} == {
        f"deepseek-r1:7b{end}" for end in ("", "-2", "-3", "-4")
    }
    assert names(seen("darwin")) == names(seen("win32")) == []


def test_newer_manifests_of_ollama_are_links_to_blobs(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    root = user / ".ollama/models"
    blob = ollama(root, R1, make_model(seed=1), v2=True)
    ollama(root, R1, make_model(seed=2))  # what the newer one replaced
    assert [(one.called, one.paths) for one in seen()] == [("deepseek-r1:7b", (blob,))]


def test_of_a_list_of_manifests_the_one_for_llama_cpp_counts(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    root = user / ".ollama/models"
    blob = ollama(root, R1, make_model())
    single = (root / "manifests" / R1).read_bytes()
    stored = root / "blobs" / f"sha256-{hashlib.sha256(single).hexdigest()}"
    stored.write_bytes(single)
    tensors = {"mediaType": "application/vnd.ollama.image.tensor", "digest": f"sha256:{'d' * 64}"}
    whole = {
        "mediaType": "application/vnd.ollama.manifest.list.v2+json",
        "manifests": [
            {"runner": "mlx", "layers": [tensors]},
            {"runner": "llamacpp", "digest": f"sha256:{stored.name.removeprefix('sha256-')}"},
        ],
    }
    (root / "manifests" / R1).write_text(json.dumps(whole))
    assert [one.paths for one in seen()] == [(blob,)]


def test_several_tags_of_one_file_are_one_model_and_latest_is_the_last_choice(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    for tag in ("latest", "7b", "7b-q4"):
        ollama(user / ".ollama/models", R1.replace("7b", tag), make_model())
    assert names(seen()) == [("Ollama", "deepseek-r1:7b")]


def test_a_tag_with_an_adapter_does_not_hide_the_model_itself(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    root, adapter = user / ".ollama/models", user / "adapter"
    adapter.write_bytes(b"GGUF")
    ollama(root, R1.replace("7b", "a-tuned"), make_model(), layer("adapter", adapter))
    assert [bool(one.problem) for one in seen()] == [True]
    assert "adapter" in seen()[0].problem
    ollama(root, R1, make_model())
    assert [(one.called, one.problem) for one in seen()] == [("deepseek-r1:7b", "")]


def test_a_blob_of_ollama_that_is_missing_or_cut_off_is_told(
    seen: Callable[..., list[Found]], user: Path, make_model: MakeModel
) -> None:
    blob = ollama(user / ".ollama/models", R1, make_model())
    size = blob.stat().st_size
    with blob.open("r+b") as file:
        file.truncate(100)
    assert [one.problem for one in seen()] == [f"its file has 100 bytes and not {size}"]
    blob.unlink()
    assert [one.problem for one in seen()] == ["its file is missing"]


# ------------------------------------------------------------------------------------------------ LM Studio


def test_lm_studio_in_its_folders(seen: Callable[..., list[Found]], user: Path, put: Put) -> None:
    relative = "lmstudio-community/R1-Distill-GGUF/R1-Distill-Q4_K_M.gguf"
    new = put(user / ".lmstudio/models" / relative, 1)
    old = put(user / ".cache/lm-studio/models/a/b/c.gguf", 2)
    put(user / ".lmstudio/models/a/b/mmproj-model-f16.gguf", 3)
    put(user / ".lmstudio/models/a/b/downloading_c.gguf", 4)
    put(user / ".lmstudio/models/a/b/c.gguf.part", 5)
    assert [(one.program, one.called, one.paths, one.sha256) for one in seen()] == [
        ("LM Studio", relative, (new,), ""),
        ("LM Studio", "a/b/c.gguf", (old,), ""),
    ]


def test_lm_studio_where_its_pointer_and_its_settings_say(
    seen: Callable[..., list[Found]], user: Path, put: Put
) -> None:
    moved, disk = user / "moved", user / "disk"
    put(moved / "models/a/b/pointed.gguf", 1)
    put(disk / "a/b/chosen.gguf", 2)
    put(user / "roaming/models/a/b/early.gguf", 3)
    (user / ".lmstudio-home-pointer").write_text(f"{moved}\n")
    (moved / "settings.json").write_text(json.dumps({"downloadsFolder": str(disk), "other": [1]}))
    early = user / "AppData/Roaming/LM Studio/settings.json"
    early.parent.mkdir(parents=True)
    early.write_text(json.dumps({"downloadsFolder": str(user / "roaming/models")}))
    called = {one.called for one in seen("win32")}
    assert called == {"a/b/pointed.gguf", "a/b/chosen.gguf", "a/b/early.gguf"}


def test_the_files_of_a_model_in_parts_are_one_model(
    seen: Callable[..., list[Found]], user: Path, put: Put
) -> None:
    folder = user / ".lmstudio/models/a/b"
    parts = [put(folder / f"big-{part:05}-of-00003.gguf", part, split=(part - 1, 3)) for part in (3, 1, 2)]
    (one,) = seen()
    assert one.paths == tuple(sorted(parts))
    assert one.size == sum(part.stat().st_size for part in parts)
    assert one.problem == ""
    parts[0].unlink()
    assert [one.problem for one in seen()] == ["of its 3 files, 2 are there"]


# ------------------------------------------------------------------------------------- llama.cpp, GPT4All


@pytest.mark.parametrize(
    ("platform", "folder"),
    [
        ("linux", ".cache/llama.cpp"),
        ("darwin", "Library/Caches/llama.cpp"),
        ("win32", "AppData/Local/llama.cpp"),
    ],
)
def test_llama_cpp(
    seen: Callable[..., list[Found]], user: Path, put: Put, platform: str, folder: str
) -> None:
    path = put(user / folder / "unsloth_R1-GGUF_R1-Q4_K_M.gguf")
    put(user / folder / "other.gguf.downloadInProgress", 1)
    (user / folder / "manifest=unsloth=R1-GGUF=Q4_K_M.json").write_text("{}")
    assert [(one.program, one.called, one.paths) for one in seen(platform)] == [
        ("llama.cpp", path.name, (path,))
    ]


def test_llama_cpp_where_the_environment_says_in_both_of_its_layouts(
    seen: Callable[..., list[Found]], user: Path, put: Put
) -> None:
    put(user / "cache/flat.gguf", 1)
    hub_file(put, user / "cache", "unsloth/R1-GGUF", "r1.gguf", 2)
    assert names(seen(LLAMA_CACHE=user / "cache")) == [
        ("llama.cpp", "flat.gguf"),
        ("llama.cpp", "unsloth/R1-GGUF/r1.gguf"),
    ]
    assert seen(LLAMA_CACHE="cache") == []  # counted from who knows where


@pytest.mark.parametrize(
    ("platform", "folder", "config"),
    [
        ("linux", ".local/share/nomic.ai/GPT4All", ".config"),
        ("darwin", "Library/Application Support/nomic.ai/GPT4All", ".config"),
        ("win32", "AppData/Local/nomic.ai/GPT4All", "AppData/Roaming"),
    ],
)
def test_gpt4all(
    seen: Callable[..., list[Found]], user: Path, put: Put, platform: str, folder: str, config: str
) -> None:
    put(user / folder / "usual.gguf", 1)
    put(user / folder / "incomplete-next.gguf", 2)
    put(user / ".cache/gpt4all/python.gguf", 3)
    put(user / "my, models/set ü.gguf", 4)
    ini = user / config / "nomic.ai/GPT4All.ini"
    ini.parent.mkdir(parents=True, exist_ok=True)
    ini.write_text(
        f'[General]\nchatTheme=Dark\nmodelPath="{user}/my, models/"\n\n[network]\nmodelPath=/\n', "utf-8"
    )
    found = seen(platform)
    assert names(found) == [("GPT4All", name) for name in ("set ü.gguf", "usual.gguf", "python.gguf")]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (r"modelPath=C:/Users/me/models/", "C:/Users/me/models/"),
        (r"modelPath=C:\\models", r"C:\models"),
        (r'modelPath="/a, b; c/"', "/a, b; c/"),
        (r"modelPath=/m\xfc\x6d/", "/müm/"),
        (r"modelPaths=/old", "/old"),
        (r"threadCount=4", ""),
    ],
)
def test_paths_in_the_settings_of_gpt4all(line: str, path: str) -> None:
    from models.programs.gpt4all import model_path

    assert model_path(f"[General]\nfontSize=Large\n{line}\n[localdocs]\nmodelPath=/no\n") == path


# ------------------------------------------------------------------------------------------------------ Jan


def jan(data: Path, model: str, **fields: object) -> None:
    path = data / "llamacpp/models" / model / "model.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key}: {value}\n" for key, value in fields.items()), "utf-8")


@pytest.mark.parametrize(
    ("platform", "root"),
    [
        ("linux", ".local/share/Jan"),
        ("darwin", "Library/Application Support/Jan"),
        ("win32", "AppData/Roaming/Jan"),
    ],
)
def test_jan(seen: Callable[..., list[Found]], user: Path, put: Put, platform: str, root: str) -> None:
    data = user / root / "data"
    where = "llamacpp/models/janhq/Jan-v1-4B/model.gguf"
    own, theirs = put(data / where, 1), put(user / "mine.gguf", 2)
    digest, size = sha256(own), own.stat().st_size
    jan(data, "janhq/Jan-v1-4B", model_path=where, name="x", model_sha256=digest, model_size_bytes=size)
    jan(data, "imported", model_path=theirs, size_bytes=theirs.stat().st_size, embedding="false")
    jan(data, "half", model_path="llamacpp/models/half/model.gguf")
    assert seen(platform) == [
        Found(program="Jan", called="imported", paths=(theirs,), size=theirs.stat().st_size),
        Found(program="Jan", called="janhq/Jan-v1-4B", paths=(own,), size=size, sha256=digest),
    ]


def test_a_file_of_jan_that_is_not_whole_is_told(
    seen: Callable[..., list[Found]], user: Path, put: Put
) -> None:
    data = user / ".local/share/Jan/data"
    size = put(data / "llamacpp/models/m/model.gguf").stat().st_size
    jan(data, "m", model_path="llamacpp/models/m/model.gguf", model_size_bytes=size + 1)
    assert [one.problem for one in seen()] == [f"its file has {size} bytes and not {size + 1}"]


@pytest.mark.parametrize(
    "written", ["'llamacpp/my m/model.gguf'\r", '"llamacpp/my m\\/model.gguf"', "llamacpp\\my m\\model.gguf"]
)
def test_a_path_is_read_as_jan_writes_it(
    seen: Callable[..., list[Found]], user: Path, put: Put, written: str
) -> None:
    data = user / ".local/share/Jan/data"
    path = put(data / "llamacpp/my m/model.gguf")
    jan(data, "m", name="a: b", model_path=written)
    assert [one.paths for one in seen()] == [(path,)]


def test_jan_in_other_folders_and_of_earlier_versions(
    seen: Callable[..., list[Found]], user: Path, put: Put
) -> None:
    chosen, settings = user / "chosen", user / ".config/Jan/settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"data_folder": str(chosen), "quick_ask": False}))
    put(chosen / "llamacpp/models/new/model.gguf", 1)
    jan(chosen, "new", model_path="llamacpp/models/new/model.gguf")
    put(chosen / "models/huggingface.co/a/b/c.gguf", 2)
    put(user / "jan/models/trinity/trinity.gguf", 3)
    put(user / "env/models/x/y.gguf", 4)
    assert {one.called for one in seen(JAN_DATA_FOLDER=user / "env")} == {
        "new",
        "huggingface.co/a/b",
        "trinity",
        "x",
    }


# ------------------------------------------------------------------------------------- the cache of the hub


def hub_file(
    put: Put, cache: Path, repository: str, name: str, seed: int = 0, commit: str = COMMIT, **options: Any
) -> Path:
    """A file in the hub's cache as huggingface_hub lays it out; the link to it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    blob = put(folder / "blobs/new", seed, **options)
    blob = blob.rename(blob.with_name(sha256(blob)))
    link = folder / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(Path("../" * (len(Path(name).parts) + 1), "blobs", blob.name))
    return link


def test_the_cache_of_the_hub(seen: Callable[..., list[Found]], user: Path, put: Put) -> None:
    cache = user / ".cache/huggingface/hub"
    link = hub_file(put, cache, "unsloth/R1-GGUF", "Q4_K_M/r1.gguf")
    (cache / f"models--unsloth--R1-GGUF/blobs/{'c' * 64}.incomplete").write_bytes(b"GGUF")
    assert seen() == [
        Found(
            program="Hugging Face cache",
            called="unsloth/R1-GGUF/Q4_K_M/r1.gguf",
            paths=(link,),
            size=link.stat().st_size,
            sha256=sha256(link),
        )
    ]


def test_a_file_of_several_commits_is_one_and_of_the_newest(
    seen: Callable[..., list[Found]], user: Path, put: Put
) -> None:
    cache = user / ".cache/huggingface/hub"
    newest = hub_file(put, cache, "a/b", "r1.gguf", 1, commit=OLDER)
    hub_file(put, cache, "a/b", "r1.gguf", 1, commit=COMMIT)
    hub_file(put, cache, "a/b", "older.gguf", 2, commit=COMMIT)
    main = cache / "models--a--b/refs/main"
    main.parent.mkdir()
    main.write_text(OLDER)
    assert [one.called for one in seen()] == ["a/b/r1.gguf", "a/b/older.gguf"]
    assert seen()[0].paths == (newest,)


def test_parts_in_the_cache_of_the_hub_have_the_digest_of_the_whole(
    seen: Callable[..., list[Found]], user: Path, put: Put
) -> None:
    cache = user / ".cache/huggingface/hub"
    links = [
        hub_file(put, cache, "a/b", f"r1-0000{part}-of-00002.gguf", part, split=(part - 1, 2))
        for part in (1, 2)
    ]
    (one,) = seen()
    assert one.paths == tuple(links)
    assert one.sha256 == digest_of_parts([Part(sha256(link), link.stat().st_size) for link in links])


def test_the_name_of_a_blob_in_the_shared_folder_is_not_taken_for_a_sha256(
    seen: Callable[..., list[Found]], user: Path, put: Put
) -> None:
    """Newer caches keep content by the hash of Xet, and the blob is a link to it."""
    cache = user / ".cache/huggingface/hub"
    link = hub_file(put, cache, "a/b", "r1.gguf")
    blob, digest = link.resolve(), sha256(link)
    shared = cache / "blobs/ee" / ("e" * 64)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(f"../../blobs/ee/{shared.name}")
    assert [(one.paths, one.sha256) for one in seen()] == [((link,), digest)]


def test_a_cache_without_links_tells_no_digest(
    seen: Callable[..., list[Found]], user: Path, put: Put
) -> None:
    path = put(user / "hub/models--a--b/snapshots" / COMMIT / "r1.gguf")
    assert [(one.paths, one.sha256) for one in seen(HF_HUB_CACHE=user / "hub")] == [((path,), "")]


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    seen: Callable[..., list[Found]], user: Path, put: Put, variable: str, below: str
) -> None:
    hub_file(put, user / "there" / below, "a/b", "r1.gguf")
    assert names(seen(**{variable: user / "there"})) == [("Hugging Face cache", "a/b/r1.gguf")]
    assert names(seen(**{variable: "~/there"})) == [("Hugging Face cache", "a/b/r1.gguf")]
    assert seen() == []


# ---------------------------------------------------------------------------------------------- checkpoints


def checkpoint(folder: Path, architecture: str = "Qwen2ForCausalLM", **config: object) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture], **config}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"1" * 100)
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"2" * 50)
    files = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def test_checkpoints_in_the_cache_and_in_lm_studio(seen: Callable[..., list[Found]], user: Path) -> None:
    name = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    snapshots = user / ".cache/huggingface/hub/models--deepseek-ai--DeepSeek-R1-Distill-Qwen-1.5B/snapshots"
    checkpoint(snapshots / COMMIT)
    checkpoint(snapshots / OLDER)
    checkpoint(user / ".lmstudio/models" / name)
    assert [(one.called, one.kind, one.size, one.problem) for one in seen()] == [
        (name, "checkpoint", 150, "")
    ] * 2
    assert [one.paths for one in seen()] == [
        (user / ".lmstudio/models" / name,),
        (snapshots / COMMIT,),
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"architecture": "GemmaForCausalLM"}, "GemmaForCausalLM cannot be converted"),
        ({"quantization": {"bits": 4}}, "quantized already"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized already"),
        ({"architecture": ""}, "does not name an architecture"),
    ],
)
def test_a_checkpoint_that_cannot_be_converted_says_so(
    seen: Callable[..., list[Found]], user: Path, change: dict[str, Any], problem: str
) -> None:
    checkpoint(user / ".lmstudio/models/a/b", **change)
    assert problem in seen()[0].problem


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("model-00002-of-00002.safetensors", "not all of its files are there"),
        ("tokenizer.json", "it has no tokenizer.json"),
    ],
)
def test_a_checkpoint_that_is_not_complete_says_so(
    seen: Callable[..., list[Found]], user: Path, missing: str, problem: str
) -> None:
    folder = user / ".lmstudio/models/a/b"
    checkpoint(folder)
    (folder / missing).unlink()
    assert [one.problem for one in seen()] == [problem]


def test_the_architectures_are_those_that_can_be_converted() -> None:
    assert set(CONVERTIBLE) == set(FAMILIES)


# ------------------------------------------------------------------------------------------------- together


def test_what_two_programs_hold_is_found_once(seen: Callable[..., list[Found]], user: Path, put: Put) -> None:
    first = put(user / ".lmstudio/models/a/b/one.gguf")
    second = user / ".cache/gpt4all/two.gguf"
    second.parent.mkdir(parents=True)
    second.hardlink_to(first)
    (user / ".cache/llama.cpp").mkdir()
    (user / ".cache/llama.cpp/three.gguf").symlink_to(first)
    assert names(seen()) == [("LM Studio", "a/b/one.gguf")]


def test_nothing_is_written(seen: Callable[..., list[Found]], user: Path) -> None:
    assert seen() == []
    assert list(user.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ollama", "Ollama"),
        ("LM-Studio", "LM Studio"),
        ("lm", "LM Studio"),
        ("llama.cpp", "llama.cpp"),
        ("gpt4all", "GPT4All"),
        ("jan", "Jan"),
        ("hub", "Hugging Face cache"),
        ("huggingface", "Hugging Face cache"),
    ],
)
def test_programs_by_the_words_of_the_user(text: str, name: str) -> None:
    assert program(text) == name
    assert name in PROGRAMS


@pytest.mark.parametrize("text", ["", "l", "word", "\x1b[31m"])
def test_other_words_are_no_program(text: str) -> None:
    with pytest.raises(UsageError, match="none of the programs") as caught:
        program(text)
    assert "\x1b" not in str(caught.value)
    assert "LM Studio" in caught.value.hint
