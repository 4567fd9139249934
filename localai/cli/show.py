"""`localai models show` and `accept`: what a model is, where it is from, and the template that it brings."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localai.cli import options, output
from localai.cli.pull import Allow
from localai.errors import UsageError

if TYPE_CHECKING:
    from models.figures import Figures
    from models.header import Header
    from models.store import Manifest, Resolved

_SHOWN = 16
"""Values of a list that are shown."""


def show(
    model: Annotated[str, typer.Argument(help="A model's name or a GGUF file.", show_default=False)],
    verify: Annotated[bool, typer.Option("--verify", help="Hash the file again and compare.")] = False,
    template: Annotated[
        bool, typer.Option("--template", help="Print the chat template in the file.")
    ] = False,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Print all that the file says of itself.")
    ] = False,
    allow_architecture: Allow = None,
    json: options.Json = False,
) -> None:
    """Show what a model is, where it came from, and what its file says."""
    from models.store import Store

    store = Store()
    resolved = store.resolve(model)
    header = resolved.header(tuple(allow_architecture or ()))
    if verify:
        if resolved.manifest is None:
            raise UsageError(f"{resolved.path} is not in the store: there is nothing to compare it with")
        with output.progress() as progress:
            store.verify(resolved.manifest, progress)
    if template and not json:
        from models import templates

        print(
            templates.shown(header.chat_template)
            if header.chat_template
            else "The file has no chat template."
        )
        return
    facts = _facts(resolved, header, verified=verify)
    if metadata or json:
        facts["metadata"] = {key: _value(value) for key, value in header.metadata.items()}
    if json:
        output.print_json(facts)
    else:
        _print_facts(facts, resolved.manifest)


def _facts(resolved: Resolved, header: Header, *, verified: bool) -> dict[str, Any]:
    from models import templates, usage
    from models.known import Known

    manifest = resolved.manifest
    kinds: Counter[str] = Counter()
    for tensor in header.tensors:
        kinds[tensor.type_name] += tensor.size
    template = header.chat_template
    used = usage.last_used(manifest.sha256) if manifest else None
    return {
        "name": resolved.name,
        "path": str(resolved.path),
        "title": header.name,
        "architecture": header.architecture,
        "type": manifest.file_type if manifest else header.file_type,
        "parameters": header.parameters,
        "size": header.file_size,
        "parts": header.split_count,
        "tensors": len(header.tensors),
        "tensor_types": dict(kinds.most_common()),
        "context_trained": header.context_trained,
        "kv_bytes_per_token": header.kv_bytes_per_token,
        "license": header.license,
        "template": _template(header),
        "template_sha256": templates.digest(template) if template else None,
        "last_used": used.isoformat() if used else None,
        "verified": True if verified else None,
        "manifest": manifest,
        "figures": Known([manifest.sha256]).of(manifest.sha256) if manifest else None,
    }


def _value(value: Any) -> Any:
    """Long arrays are passed over when a header is read."""
    from models.header import ArrayInfo

    if isinstance(value, ArrayInfo):
        return f"{value.length} values of type {value.element_type}"
    if isinstance(value, tuple) and len(value) > _SHOWN:
        return f"{len(value)} values, the first: {', '.join(map(str, value[:_SHOWN]))}"
    return value


def _print_facts(facts: dict[str, Any], manifest: Manifest | None) -> None:
    from models.origins import describe

    context = (
        f"{facts['context_trained']:,} tokens, {output.size(facts['kv_bytes_per_token'])} of memory each"
    )
    kinds = ", ".join(f"{kind} {output.size(size)}" for kind, size in facts["tensor_types"].items())
    rows = {
        "name": facts["name"],
        "title": manifest.title if manifest else facts["title"],
        "architecture": facts["architecture"],
        "type": facts["type"],
        "tensors": f"{facts['tensors']}: {kinds}",
        "parameters": f"{facts['parameters']:,}",
        "size": f"{output.size(facts['size'])} ({facts['size']:,} bytes)",
        "parts": facts["parts"] if facts["parts"] > 1 else "",
        "context": context,
        "license": (manifest.license if manifest else "") or facts["license"] or "not stated",
        "template": facts["template"],
        "file": facts["path"],
    }
    if manifest is not None:
        rows |= {
            "sha256": manifest.sha256 + (" (verified now)" if facts["verified"] else ""),
            "source": describe(manifest.source),
            "digest": "known before it came" if manifest.pinned else "as it was when it came",
            "shared": f"by {manifest.sharing}" if manifest.sharing else "",
            "added": manifest.added[:19].replace("T", " ") + " UTC",
            "last used": (facts["last_used"] or "never")[:19].replace("T", " "),
            "reasoning": "yes" if manifest.reasoning else "no",
            "note": manifest.note,
        }
    rows |= _figures(facts["figures"])
    for key, value in facts.get("metadata", {}).items():
        rows[f"  {key}"] = str(value)
    width = max(13, *(len(label) for label in rows)) if "metadata" in facts else 13
    for label, value in rows.items():
        if value:
            print(f"{output.one_line(label):<{width}} {output.one_line(str(value))}")


def _figures(found: Figures | None) -> dict[str, str]:
    """What was measured of it."""
    from models.figure_words import answers, likeness, with_error

    rows: dict[str, str] = {}
    if found is not None and (speed := found.speed):
        written, read = (with_error(one.median, one.stderr) for one in (speed.generate, speed.prompt))
        rows["speed"] = f"writes {written} tokens/s, reads {read}; {speed.backend}, {speed.threads} threads"
    if found is not None and (loss := found.loss):
        ratio = with_error(loss.perplexity_ratio, loss.perplexity_ratio_stderr)
        said = likeness(loss).rstrip(".")
        rows["loss"] = f"{said}; perplexity x{ratio}; {loss.text}, {loss.tokens:,} tokens"
    if found is not None and found.answers:
        rows["answers"] = answers(found.answers).rstrip(".")
    return rows


def accept(
    model: Annotated[str, typer.Argument(help="A model's name or a GGUF file.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: it has been read.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Let it no longer be run.")] = False,
    allow_architecture: Allow = None,
) -> None:
    """Let the chat template that a model brings be run. Models with a known template need no such thing."""
    from models import templates
    from models.store import Store

    header = Store().resolve(model).header(tuple(allow_architecture or ()))
    template = header.chat_template
    if not template:
        raise UsageError(f"{model} has no chat template", "It is a base model, not one to talk with")
    if undo:
        was = templates.forget(template)
        print("It is not run any more." if was else "It was not accepted.")
        return
    if not templates.unread(header, templates.accepted()):
        print(f"Nothing to do. The template: {_template(header)}")
        return
    if not yes:
        print(templates.shown(template))
        if not sys.stdin.isatty():
            raise UsageError("Nobody is here to say yes", "Read it, then: the same command with --yes")
        typer.confirm("This is run, in a sandbox, to make prompts for the model. Accept it?", abort=True)
    templates.accept(template)
    print(f"Accepted. Try: localai chat {output.one_line(model)}")


def template_note(manifest: Manifest) -> str:
    """What the user has to do before a model just added can be talked with; "": nothing."""
    from models import templates
    from models.store import Store

    resolved = Store().resolve(manifest.name)
    if not templates.unread(resolved.header(), templates.accepted()):
        return ""
    return (
        f"{manifest.name} brings its own chat template, which nobody here has read. "
        f"To see it: localai models show {manifest.name} --template; to have it used: localai models accept "
        f"{manifest.name}"
    )


def list_note(name: str, digests: Collection[str]) -> str:
    """That a model may be kept but not run, for its files are not on the organization's list; "": it may run.

    `digests`: SHA-256 of its files, in small hex.
    """
    from localai import policy

    known = policy.current()
    if known.lists(digests):
        return ""
    listed = ", ".join(sorted(digests))
    return (
        f"{name} is not on the list of models that your organization lets run. SHA-256: {listed}. {known.ask}"
    )


def _template(header: Header) -> str:
    """What is known of the template that a file brings, in words."""
    from models import templates

    template = header.chat_template
    if not template:
        return "none"
    known = templates.digest(template)
    if name := templates.R1.get(known):
        return f"{name}: known, and ours is used instead"
    if name := templates.READ.get(known):
        return f"{name}: known, and used"
    if header.token_facts.r1_markers:
        return "its own, not run: DeepSeek-R1's format is used"
    return "its own, accepted" if templates.is_accepted(template) else "its own, not accepted yet"
