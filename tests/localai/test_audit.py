"""`localai audit`: each section with real files and a real engine, and what is weakened shows."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import struct
from importlib import metadata
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from localai import paths, policy
from localai.audit import advisories, installed, program, report, settings, storage
from localai.cli import audit_text
from localai.confine.report import Layer
from localai.errors import LocalAIError
from models import measured
from models.files import sha256_of
from models.gguf import read_header
from models.library import Library
from tests.known_figures import known, speed
from tests.localai import policies
from tests.localai.kernels import needs_landlock

KNOWN = "0c1e57098"


def audit(*words: object, **environment: str) -> dict:
    done = policies.run("audit", "--json", "--no-proof", *words, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_report_tells_of_program_engine_and_sandbox() -> None:
    found = audit()
    assert [one["name"] for one in found["program"]["packages"]] == list(program.PACKAGES)
    assert found["engine"]["commit"]
    assert found["advisories"]["engine_known"]
    assert any("libllama" in one["name"] and one["as_installed"] for one in found["engine"]["libraries"])
    assert found["sandbox"]["layers"]
    assert found["proof"] is None


@needs_landlock
def test_the_text_fits_80_columns_and_proves_it() -> None:
    done = policies.run("audit")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "Proof: passed" in done.stdout
    assert "0 packets were sent" in done.stdout or "packets were not counted" in done.stdout


@needs_landlock
def test_the_first_screen_has_the_verdict_and_what_weakens_it(nano: Path) -> None:
    assert policies.run("models", "import", nano, "--name", "mine").returncode == 0
    first = policies.run("audit", "--model", "mine").stdout.split("Details")[0]
    assert len(first.splitlines()) <= 24
    assert "Verdict: the engine is fully confined, and that was proved" in first
    assert "mine answered" in first
    first = policies.run("audit", LOCALAI_SANDBOX="off").stdout.split("Details")[0]
    assert len(first.splitlines()) <= 24
    assert "Verdict: the engine is NOT CONFINED" in first
    assert "the sandbox is switched off" in first


def test_a_model_that_the_policy_forbids_is_not_what_it_is_proved_with(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert policies.run("models", "import", nano, "--name", "mine").returncode == 0
    policies.enforce(tmp_path, monkeypatch, "[models]\nallow = []\n")
    text = policies.run("audit").stdout
    assert "r1-nano answered" in text
    assert "not on the policy's list" in text


def test_a_layer_that_is_off_wants_attention_only_below_full(capsys: pytest.CaptureFixture[str]) -> None:
    found = report.gather(None)
    off = (Layer("network_namespace", on=False, detail="not allowed"),)
    for level, mark in (("full", "-"), ("partial", "!")):
        sandbox = advisories.msgspec.structs.replace(found.sandbox, level=level, layers=off)
        audit_text.show(advisories.msgspec.structs.replace(found, sandbox=sandbox))
        assert f"  {mark:<3}network_namespace: not allowed" in capsys.readouterr().out


def test_equal_libraries_are_shown_once_and_each_advisory() -> None:
    text = policies.run("audit", "--no-proof").stdout
    for one in advisories.read().advisories:
        assert one.id in " ".join(text.split())
    for library in program.engine(None).libraries:
        assert text.count(library.sha256) == 1


def test_an_engine_that_does_not_start_is_never_well(tmp_path: Path) -> None:
    first = policies.run("audit", LLAMA_CPP_LIB_PATH=str(tmp_path)).stdout.split("Details")[0]
    assert "Verdict: NOTHING is known of the engine" in first
    marks = {line[5:20].strip(): line[2:5].strip() for line in first.splitlines()}
    assert (marks["Proof"], marks["Sandbox"], marks["Engine"]) == ("!", "!", "!")


def test_strict_fails_for_what_weakens_and_names_it() -> None:
    done = policies.run("audit", "--no-proof", "--strict", LOCALAI_SANDBOX="off")
    assert done.returncode == 1
    assert "sandbox is switched off" in done.stdout


def test_a_proof_that_fails_is_a_failure_and_an_sbom_stands_alone() -> None:
    """So that `localai audit && ...` goes on only where the sandbox holds."""
    done = policies.run("audit", LOCALAI_SANDBOX="off")
    assert done.returncode == 1
    assert policies.run("audit", "--no-proof", LOCALAI_SANDBOX="off").returncode == 0
    done = policies.run("audit", "--sbom", "-", "--json")
    assert (done.returncode, done.stderr) == (
        2,
        "localai: error: --sbom only writes the list of all parts. Give it alone.\n",
    )


@pytest.mark.parametrize(
    "variable", ["LOCALAI_DEBUG", "LD_PRELOAD", "PYTHONPATH", "LOCALAI_PASSPHRASE", "LLAMA_CPP_LIB_PATH"]
)
def test_a_variable_that_weakens_shows(variable: str) -> None:
    assert any(variable in one.what for one in settings.findings({variable: "/somewhere"}))
    assert not any(variable in one.what for one in settings.findings({}))


def test_an_endpoint_without_encryption_shows() -> None:
    assert settings.findings({"HF_ENDPOINT": "http://mirror"}) != settings.findings({})
    assert settings.findings({"HF_ENDPOINT": "https://mirror"}) == settings.findings({})


def test_an_old_python_shows() -> None:
    found = settings.findings({}, lambda: datetime.date(2099, 1, 1))
    assert any("no security fixes" in one.what for one in found)


def test_one_changed_byte_of_the_program_shows(tmp_path: Path) -> None:
    for name in program.PACKAGES:
        shutil.copytree(program.HERE / name, tmp_path / name)
    listed = {
        path.relative_to(tmp_path).as_posix(): sha256_of(path)
        for name in program.PACKAGES
        for path in program.digests.files_below(tmp_path / name)
    }
    before = program.program(tmp_path)
    assert before.packages == program.program().packages
    assert program.differing(tmp_path, listed) == ()
    target = tmp_path / "localai" / "errors.py"
    target.write_bytes(target.read_bytes() + b"#")
    assert program.differing(tmp_path, listed) == ("localai/errors.py",)
    assert program.program(tmp_path).packages[0] != before.packages[0]
    (tmp_path / "tui" / "added.py").write_text("")
    assert "tui/added.py" in program.differing(tmp_path, listed)


def test_an_installed_wheel_is_compared_with_its_list(tmp_path: Path) -> None:
    for name in program.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    folder = tmp_path / "localai_chat-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: localai-chat\nVersion: 0.1.0\n")
    empty = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    (folder / "RECORD").write_text("".join(f"{name}/__init__.py,{empty},0\n" for name in program.PACKAGES))
    found = program.program(tmp_path)
    assert (found.installed, found.checked, found.differing) == ("wheel", 4, ())
    (tmp_path / "tui" / "__init__.py").write_text("x")
    assert program.program(tmp_path).differing == ("tui/__init__.py",)


def test_another_library_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in program.bindings.libraries():
        shutil.copy(path, tmp_path / path.name)
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    assert all(one.as_installed for one in program.engine(None).libraries)
    target = next(tmp_path.glob("*llama*"))
    target.write_bytes(target.read_bytes() + b"\0")
    facts = program.engine(None)
    assert [one.name for one in facts.libraries if not one.as_installed] == [target.name]
    found = program.findings(program.program(), facts)
    assert any(one.area == "engine" and target.name in one.what for one in found)


def test_an_engine_with_rpc_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    ours = program.program()
    for name, shown in (("libggml-base.so", False), ("libggml-rpc.so", True)):
        (tmp_path / name).write_bytes(b"\x7fELF")
        found = program.findings(ours, program.engine(None))
        assert any("RPC" in one.what for one in found) is shown


def test_the_list_of_advisories_is_dated_and_has_sources() -> None:
    known = advisories.read()
    assert known.checked <= advisories.today()
    assert len({one.id for one in known.advisories}) == len(known.advisories) >= 20
    assert all(one.fixed_in or one.reason for one in known.advisories)
    assert all(one.status for one in known.advisories if one.component == advisories.ENGINE)


def test_an_old_list_is_told() -> None:
    day = advisories.read().checked
    for days, old in ((advisories.OLD_DAYS, False), (advisories.OLD_DAYS + 1, True)):
        found = advisories.judged(KNOWN, clock=lambda days=days: day + datetime.timedelta(days))
        assert any("days old" in one.what for one in advisories.findings(found)) is old


def test_an_engine_that_nobody_looked_at_is_not_assessed() -> None:
    found = advisories.judged("ffffffff0")
    assert {one.status for one in found.entries if one.component == advisories.ENGINE} == {"not assessed"}
    assert any("not looked at" in one.what for one in advisories.findings(found))


def test_a_package_below_the_fix_is_affected() -> None:
    known = advisories.read()
    later = [
        advisories.msgspec.structs.replace(one, fixed_in="999.0") if one.component == "jinja2" else one
        for one in known.advisories
    ]
    found = advisories.judged(KNOWN, advisories.msgspec.structs.replace(known, advisories=tuple(later)))
    assert {one.status for one in found.entries if one.component == "jinja2"} == {"affected"}
    assert any("jinja2" in one.do for one in advisories.findings(found))


def test_a_tensor_whose_size_wraps_is_refused_by_our_own_reader(tmp_path: Path) -> None:
    """What the list says of PR 26318 and PR 27200."""
    for kind, elements in ((2, 5124095576030431008), (0, (1 << 62) - 1)):
        text = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
        text += struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, elements, kind, 0)
        (path := tmp_path / "wraps.gguf").write_bytes(text.ljust(256, b"\0"))
        with pytest.raises(LocalAIError):
            read_header(path)


def test_models_with_their_digest_and_a_changed_one(nano: Path) -> None:
    assert policies.run("models", "import", nano, "--name", "mine").returncode == 0
    library = Library()
    [one] = installed.models(library, policy.current().lists, verify=True, now="now")
    assert (one.name, one.verified, one.hashed) == ("mine", True, "now")
    assert one.sha256 == sha256_of(nano)
    path = library.path(library.get("mine"))
    before = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = installed.models(library, policy.current().lists, verify=True)
    assert changed[0].verified is False
    assert installed.findings(changed, library)


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may read everything")
def test_a_model_that_cannot_be_read_does_not_end_the_report(nano: Path) -> None:
    assert policies.run("models", "import", nano, "--name", "mine").returncode == 0
    library = Library()
    library.path(library.get("mine")).chmod(0)
    [one] = installed.models(library, policy.current().lists, verify=True)
    assert one.verified is None
    assert "cannot be checked" in one.fault


def test_folders_that_others_may_write_to_show() -> None:
    root = paths.private_dir(paths.models_dir())
    assert installed.findings((), Library()) == []
    root.chmod(0o777)
    assert "others may change" in installed.findings((), Library())[0].what


def test_rights_of_the_history_show() -> None:
    folder = paths.private_dir(paths.data_dir())
    assert storage.storage().open_paths == ()
    folder.chmod(0o755)
    found = storage.storage()
    assert [one.path for one in found.open_paths] == [str(folder)]
    assert any("chmod 0700" in one.do for one in storage.findings(found))


def test_where_figures_of_models_are_kept_shows() -> None:
    assert storage.storage().measurements == ()
    assert measured.keep(known(speed=speed(40)))
    assert storage.storage().measurements == (str(paths.models_dir() / "figures"),)


def test_a_plain_history_shows() -> None:
    from localai.history import key

    key.create(())
    assert any("plain" in one.what for one in storage.findings(storage.storage()))


def test_a_choice_that_cannot_be_read_does_not_make_it_encrypted() -> None:
    from localai.history import key

    path = paths.history_path()
    for content, kept in ((b"SQLite format 3\0".ljust(4096, b"x"), "plain"), (b"x" * 4096, "encrypted")):
        paths.private_dir(path.parent)
        path.write_bytes(content)
        paths.private_dir(key.key_path().parent)
        key.key_path().write_text("{broken")
        found = storage.storage()
        assert (found.kept, bool(found.error)) == (kept, True)
    path.unlink()
    path.mkdir()
    assert storage.storage().kept == "unknown"


def test_the_policy_is_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit()["policy"] == {"rules": [], "sha256": ""}
    file = policies.enforce(tmp_path, monkeypatch, "[require]\nsandbox = true\n")
    found = audit()
    assert found["policy"]["sha256"] == sha256_of(file)
    assert any(str(file) == rule["file"] for rule in found["policy"]["rules"])
    assert found["sandbox_mode"] == "require"


def test_a_policy_that_others_may_change_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = policies.enforce(tmp_path, monkeypatch, "[require]\nsandbox = true\n")
    tmp_path.chmod(0o755)
    for rights, open_to_others in ((0o644, False), (0o666, True)):
        file.chmod(rights)
        areas = {one["area"] for one in audit()["findings"]}
        assert ("policy" in areas) is open_to_others
    file.chmod(0o644)
    tmp_path.chmod(0o777)
    assert any(str(tmp_path) in one["what"] for one in audit()["findings"] if one["area"] == "policy")


def test_each_field_is_documented(nano: Path) -> None:
    assert policies.run("models", "import", nano, "--name", "mine").returncode == 0
    found = json.loads(policies.run("audit", "--json", "--model", "mine").stdout)
    text = (program.HERE / "docs" / "json.md").read_text(encoding="utf-8")
    section = text.split("## `localai audit --json`")[1].split("\n## ")[0]
    told_elsewhere = found["sandbox"], found["proof"]["sandbox"], found["models"][0]["origin"]
    for one in told_elsewhere:
        one.clear()
    assert {name for name in _names(found) if f"`{name}`" not in section} == set()


def _names(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()


def test_the_list_of_parts_is_valid_and_whole(nano: Path) -> None:
    assert policies.run("models", "import", nano, "--name", "mine").returncode == 0
    texts = [policies.run("audit", "--sbom", "-", SOURCE_DATE_EPOCH="1").stdout for _ in range(2)]
    assert texts[0] == texts[1]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(texts[0]) is None
    document = json.loads(texts[0])
    listed = {(one["name"], one.get("version")) for one in document["components"]}
    assert {
        (one.metadata["Name"], one.version)
        for one in metadata.distributions()
        if one.metadata["Name"] != "localai-chat"
    } <= listed
    [model] = [one for one in document["components"] if one["type"] == "machine-learning-model"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": sha256_of(nano)}]
    refs = {one["bom-ref"] for one in document["components"]} | {"localai-chat"}
    assert {ref for one in document["dependencies"] for ref in (one["ref"], *one["dependsOn"])} <= refs
    [disk] = [one for one in document["vulnerabilities"] if one["id"] == "CVE-2025-69872"]
    assert disk["analysis"]["state"] == "not_affected"
    assert disk["analysis"]["justification"] == "code_not_reachable"
