"""`localai selftest`: does everything work on this machine, and what is this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from localai.cli import options, output

if TYPE_CHECKING:
    from localai.engine.protocol import Device
    from localai.selftest import ModelCheck, Report


def selftest(
    json: options.Json = False, threads: options.Threads = None, sandbox: options.Sandbox = None
) -> None:
    """Check that everything works on this machine.

    Quantizes, loads and questions the tiny R1 that is shipped with the program, and prints what a report of a
    defect needs. Needs no model and no network.
    """
    import asyncio

    from localai.selftest import run

    report = asyncio.run(run(lambda step: output.note(f"{step} ..."), threads))
    if json:
        output.print_json(report)
    else:
        _print(report)
    if not report.passed:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    from localai.confine.report import words

    rows = {
        "localai": report.versions["localai"],
        "packages": ", ".join(
            f"{k} {v}" for k, v in report.versions.items() if k not in ("localai", "python")
        ),
        "llama.cpp": f"commit {report.llama_cpp_commit}" if report.llama_cpp_commit else "not running",
        "python": f"{report.versions['python']} on {report.platform}",
        "processor": f"{report.processor}, {report.physical_cores} physical cores in use",
        "features": " ".join(report.cpu_features),
        "devices": "; ".join(_device(device) for device in report.devices),
        "sandbox": words(report.sandbox),
        "memory": f"{output.size(report.memory_available)} free of {output.size(report.memory_total)}",
    }
    for label, value in rows.items():
        print(f"{label:<12}{output.one_line(value)}")
    for check in report.models:
        print()
        _print_check(check)
    print()
    print(
        f"localai works on this machine: {'yes' if report.passed else 'NO'}"
        + (f" - {report.error}" if report.error else "")
    )


def _device(device: Device) -> str:
    """Its name, and of a GPU the free memory: layers go there as long as they fit."""
    free = f", {output.size(device.memory_free)} free" if device.kind in ("gpu", "igpu") else ""
    return f"{device.name} ({device.description}{free})"


def _print_check(check: ModelCheck) -> None:
    print(f"r1-nano {check.file_type}: {'passed' if check.passed else 'FAILED'}")
    if check.error:
        print(f"  {output.one_line(check.error)}")
        return
    for item in check.sums:
        mark = "ok " if item.passed else "BAD"
        thought = f"thought {item.thinking_tokens:>3} tokens"
        print(f"  {mark} {item.question:<22} {thought}, then: {output.clean(item.answer)}")
    print(
        f"  {check.prompt_tokens_per_s:,.0f} prompt tokens/s, {check.tokens_per_s:,.0f} generated tokens/s "
        f"({check.backend}, {check.threads} threads), loaded in {check.load_s:.2f} s"
    )
