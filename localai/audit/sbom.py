"""The list of all parts (SBOM) as CycloneDX 1.6: packages, engine, Python, models, and what is known of them.

Source: https://cyclonedx.org/docs/1.6/json/. The same parts give the same document, but for its timestamp,
which SOURCE_DATE_EPOCH sets: https://reproducible-builds.org/specs/source-date-epoch/.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import uuid
from importlib import metadata
from typing import Any, Final

from localai import __version__
from localai.audit import advisories, installed, program
from localai.errors import UsageError
from models.library import Library
from models.manifest import Manifest
from models.origins import describe

_OURS: Final = "localai-chat"
_ENGINE_REF: Final = "llama.cpp"
_EPOCH: Final = "SOURCE_DATE_EPOCH"
_ANALYSIS: Final[dict[str, dict[str, str]]] = {
    "fixed": {"state": "resolved"},
    "affected": {"state": "exploitable"},
    "not reachable": {"state": "not_affected", "justification": "code_not_reachable"},
    "not assessed": {"state": "in_triage"},
}

Json = dict[str, Any]


def document() -> Json:
    """The list. OSError, LocalAIError."""
    found = {_name(one): one for one in metadata.distributions() if one.metadata["Name"]}
    commit = _commit()
    parts = [_package(one) for name, one in sorted(found.items()) if name != _OURS]
    models = [_model(one) for one in Library().manifests()]
    components = [*parts, _engine(commit), *_bundled(), _python(), *models]
    content: Json = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _program(found.get(_OURS))},
        "components": components,
        "dependencies": _dependencies(found, [one["bom-ref"] for one in models]),
        "vulnerabilities": _vulnerabilities(commit, found),
    }
    text = json.dumps(content, sort_keys=True).encode()
    content["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(text).hexdigest())}"
    content["metadata"]["timestamp"] = _timestamp()
    return content


def _program(one: metadata.Distribution | None) -> Json:
    digests = [f"{package.name}={package.sha256}" for package in program.program().packages]
    return {
        "type": "application",
        "bom-ref": _OURS,
        "name": _OURS,
        "version": __version__,
        "licenses": _licenses(one) if one else [],
        "properties": [{"name": "localai:sha256", "value": digest} for digest in digests],
    }


def _package(one: metadata.Distribution) -> Json:
    component: Json = {
        "type": "library",
        "bom-ref": _ref(one),
        "name": one.metadata["Name"],
        "version": one.version,
        "purl": _ref(one),
    }
    if licenses := _licenses(one):
        component["licenses"] = licenses
    if listed := one.read_text("RECORD"):
        digest = hashlib.sha256(listed.encode()).hexdigest()
        component["properties"] = [{"name": "localai:record-sha256", "value": digest}]
    return component


def _engine(commit: str) -> Json:
    facts = program.engine(None)
    return {
        "type": "library",
        "bom-ref": _ENGINE_REF,
        "name": "llama.cpp",
        "version": commit or "unknown",
        "purl": f"pkg:github/ggml-org/llama.cpp@{commit}" if commit else "pkg:github/ggml-org/llama.cpp",
        "licenses": [{"license": {"id": "MIT"}}],
        "components": [
            {
                "type": "file",
                "bom-ref": f"{_ENGINE_REF}/{one.name}",
                "name": one.name,
                "hashes": [{"alg": "SHA-256", "content": one.sha256}],
            }
            for one in facts.libraries
        ],
    }


def _bundled() -> list[Json]:
    """Libraries within packages, as they tell of themselves."""
    found: list[tuple[str, str]] = []
    try:
        from sqlcipher3 import dbapi2

        cipher = dbapi2.connect(":memory:").execute("PRAGMA cipher_version").fetchone()
        found += [("SQLCipher", str(cipher[0]).split()[0]), ("SQLite", dbapi2.sqlite_version)]
    except (ImportError, AttributeError, TypeError):
        pass
    try:
        from cryptography.hazmat.backends.openssl.backend import backend

        found.append(("OpenSSL", backend.openssl_version_text().split()[1]))
    except (ImportError, IndexError):
        pass
    return [
        {"type": "library", "bom-ref": f"bundled/{name}@{version}", "name": name, "version": version}
        for name, version in found
    ]


def _python() -> Json:
    version = platform.python_version()
    name = platform.python_implementation()
    return {"type": "platform", "bom-ref": f"{name}@{version}", "name": name, "version": version}


def _model(one: Manifest) -> Json:
    properties = {
        "localai:source": describe(one.source),
        "localai:commit": installed.commit_of(one.source),
        "localai:pinned": str(one.pinned).lower(),
        "localai:added": one.added,
    }
    component: Json = {
        "type": "machine-learning-model",
        "bom-ref": f"model/{one.name}",
        "name": one.name,
        "version": one.file_type,
        "description": one.title,
        "modelCard": {"modelParameters": {"task": "text-generation", "modelArchitecture": one.architecture}},
        "properties": [{"name": key, "value": value} for key, value in properties.items() if value],
    }
    # Of a model in parts the digest is over those of its parts, and of no file.
    files = [part.sha256 for part in one.parts]
    if files:
        component["properties"] += [{"name": "localai:part-sha256", "value": digest} for digest in files]
    else:
        component["hashes"] = [{"alg": "SHA-256", "content": one.sha256}]
    if one.license:
        component["licenses"] = [{"license": {"name": one.license}}]
    return component


def _dependencies(found: dict[str, metadata.Distribution], models: list[str]) -> list[Json]:
    lines = []
    for name, one in sorted(found.items()):
        needs = {_canonical(word) for word in map(_required, one.requires or ()) if word}
        refs = sorted(_ref(found[need]) for need in needs if need in found and need != _OURS)
        if name == _OURS:
            refs = [*refs, *models]
        if name == "llama-cpp-python":
            refs = [*refs, _ENGINE_REF]
        lines.append({"ref": _OURS if name == _OURS else _ref(one), "dependsOn": refs})
    return lines


def _vulnerabilities(commit: str, found: dict[str, metadata.Distribution]) -> list[Json]:
    lines = []
    for one in advisories.judged(commit).entries:
        if one.status == "not installed":
            continue
        ref = _ENGINE_REF if one.component == advisories.ENGINE else _ref(found[_canonical(one.component)])
        analysis: Json = dict(_ANALYSIS[one.status])
        detail = [one.reason, one.unconfirmed and f"not confirmed: {one.unconfirmed}"]
        if any(detail):
            analysis["detail"] = "; ".join(filter(None, detail))
        lines.append(
            {
                "bom-ref": f"advisory/{one.id}",
                "id": one.id,
                "source": {"url": one.source},
                "references": [{"id": other, "source": {"url": one.source}} for other in one.aliases],
                "description": one.title,
                "analysis": analysis,
                "affects": [{"ref": ref}],
            }
        )
    return lines


def _required(requirement: str) -> str:
    """The package of a requirement; "" if it is only for an extra."""
    return "" if "extra ==" in requirement else re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _licenses(one: metadata.Distribution) -> list[Json]:
    if expressions := one.metadata.get_all("License-Expression"):
        return [{"expression": expressions[0]}]
    told = str((one.metadata.get_all("License") or [""])[0])
    if told and "\n" not in told and len(told) < 100:
        return [{"license": {"name": told}}]
    classifiers = one.metadata.get_all("Classifier") or []
    names = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License ::")]
    return [{"license": {"name": name}} for name in names]


def _commit() -> str:
    import asyncio

    from localai.engine.client import Engine
    from localai.errors import LocalAIError

    async def ask() -> str:
        engine = Engine()
        try:
            return (await engine.describe()).llama_cpp_commit
        except LocalAIError:
            return ""
        finally:
            await engine.close()

    return asyncio.run(ask())


def _timestamp() -> str:
    text = os.environ.get(_EPOCH)
    if not text:
        return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        return datetime.datetime.fromtimestamp(int(text), datetime.UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{_EPOCH} is {text!r}", "Set it to seconds since 1970, or unset it") from error


def _ref(one: metadata.Distribution) -> str:
    return f"pkg:pypi/{_name(one)}@{one.version}"


def _name(one: metadata.Distribution) -> str:
    return _canonical(one.metadata["Name"])


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
