"""The list of advisories is whole, what is unsure in it shows, and its reasons hold for our code."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from localai.audit import advisories, sbom
from localai.errors import LocalAIError
from models.gguf import read_header
from tests.localai import policies

ROOT = Path(advisories.__file__).parents[2]
KNOWN = advisories.read()


def test_each_entry_of_the_engine_says_why() -> None:
    for one in KNOWN.advisories:
        assert one.dated, one.id
        if one.component == advisories.ENGINE:
            assert one.status, one.id
            assert one.reason, one.id
        else:
            assert bool(one.status) != bool(one.fixed_in), one.id


def test_an_alias_names_one_entry_only() -> None:
    names = [name for one in KNOWN.advisories for name in (one.id, *one.aliases)]
    assert sorted(set(names)) == sorted(names)


def test_no_package_that_is_installed_here_is_affected() -> None:
    found = advisories.judged(KNOWN.engines[0].commit)
    assert [one.id for one in found.entries if one.status in ("affected", "not assessed")] == []


def test_what_was_not_confirmed_shows() -> None:
    unsure = {one.id: f"not confirmed: {one.unconfirmed}" for one in KNOWN.advisories if one.unconfirmed}
    assert unsure
    text = " ".join(policies.run("audit", "--no-proof").stdout.split())
    assert [name for name, told in unsure.items() if told not in text] == []
    found = json.loads(policies.run("audit", "--no-proof", "--json").stdout)["advisories"]["entries"]
    assert {
        one["id"]: f"not confirmed: {one['unconfirmed']}" for one in found if one["unconfirmed"]
    } == unsure
    listed = {one["id"]: one["analysis"].get("detail", "") for one in sbom.document()["vulnerabilities"]}
    assert [name for name, told in unsure.items() if not listed[name].endswith(told)] == []


def test_an_alignment_without_a_bound_is_refused_by_our_own_reader(tmp_path: Path) -> None:
    """What the list says of the message of 2026-05-15."""
    key = b"general.alignment"
    for alignment, refused in ((1 << 31, True), (32, False)):
        text = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
        text += struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, alignment)
        (path := tmp_path / "aligned.gguf").write_bytes(text.ljust(256, b"\0"))
        if refused:
            with pytest.raises(LocalAIError, match="alignment"):
                read_header(path)
        else:
            assert read_header(path).alignment == alignment


@pytest.mark.parametrize(
    "name",
    [
        "GGUFReader",
        "diskcache",
        "llama_batch_init",
        "llama_sampler_init_dry",
        "llama_sampler_init_grammar",
        "llama_state_load_file",
        "llama_state_seq_load_file",
        "mtmd",
    ],
)
def test_nothing_here_uses_what_the_list_says_is_never_used(name: str) -> None:
    users = [
        path.relative_to(ROOT).as_posix()
        for package in ("localai", "models", "quantize", "tui")
        for path in sorted((ROOT / package).rglob("*.py"))
        if re.search(rf"\b{name}\b", path.read_text(encoding="utf-8"))
    ]
    assert users == []
