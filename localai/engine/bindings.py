"""llama.cpp's libraries, through llama-cpp-python's ctypes bindings.

Only the low-level bindings are used: the package's own `__init__` is skipped, because it would bring in a
disk cache, a log callback that prints, and 0.2 s of imports. Nothing that llama.cpp logs reaches the screen.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
import sys
import types
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from localai.errors import EngineError

_BACKEND = re.compile(r"(?:lib)?ggml-([a-z]+)\b")
_LOG_WARNING, _LOG_ERROR, _LOG_CONTINUED = 3, 4, 5

log_tail: deque[str] = deque(maxlen=40)
"""The last warnings and errors of llama.cpp, one line each; what an error message quotes."""


@cache
def bindings() -> Any:
    """llama_cpp's ctypes module, with our log callback in place and the backends initialised."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.submodule_search_locations is None:
        raise EngineError("llama-cpp-python is not installed", "Run `make install` in the repository")
    if "llama_cpp" not in sys.modules:
        package = types.ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules["llama_cpp"] = package
    try:
        module = importlib.import_module("llama_cpp.llama_cpp")
    except (RuntimeError, OSError) as error:
        raise EngineError(f"llama.cpp could not be loaded: {error}", "Run `make clean install`") from error
    module.llama_log_set(_log_callback(module), None)
    module.llama_backend_init()
    return module


def libraries() -> list[Path]:
    """The files of llama.cpp and ggml that are loaded; nothing where llama-cpp-python is not installed."""
    spec = importlib.util.find_spec("llama_cpp")
    folders = [Path(folder, "lib") for folder in (spec.submodule_search_locations or ())] if spec else []
    if named := os.environ.get("LLAMA_CPP_LIB_PATH"):
        folders = [Path(named)]
    return sorted(path for folder in folders for name in ("*llama*", "*ggml*") for path in folder.glob(name))


def gpu_backends() -> tuple[str, ...]:
    """The GPU backends that are compiled in, such as "cuda"; found without loading anything."""
    names = {match[1] for path in libraries() if (match := _BACKEND.match(path.name))}
    return tuple(sorted(names - {"base", "cpu", "blas", "rpc"}))


_captured: list[bytes] | None = None


@contextmanager
def captured_log() -> Iterator[list[bytes]]:
    """While the body runs, the list gets all that llama.cpp logs, in pieces that may be parts of lines."""
    global _captured  # llama.cpp has one log, too
    pieces: list[bytes] = []
    _captured = pieces
    try:
        yield pieces
    finally:
        _captured = None


@cache
def _log_callback(module: Any) -> Any:
    level_before = 0

    def log(level: int, text: bytes, _user_data: Any) -> None:
        nonlocal level_before
        level_before = level if level != _LOG_CONTINUED else level_before
        if _captured is not None:
            _captured.append(text)
        line = text.decode("utf-8", "replace").strip()
        if line and level_before in (_LOG_WARNING, _LOG_ERROR):
            log_tail.append(line)

    return module.llama_log_callback(log)


@cache
def get_logits() -> Any:
    """llama_get_logits_ith(context, index); its address as a number: a pointer object costs 20 us."""
    function = bindings()._lib["llama_get_logits_ith"]
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int32]
    return function


@cache
def ggml() -> Any:
    """libggml with the signatures that we use; it re-exports what libggml-base has."""
    bindings()
    library = importlib.import_module("llama_cpp._ggml").libggml
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    integer, long = ctypes.c_int, ctypes.c_int64
    for name, result, arguments in (
        ("ggml_commit", text, []),
        ("ggml_backend_dev_count", size, []),
        ("ggml_backend_dev_get", pointer, [size]),
        ("ggml_backend_dev_name", text, [pointer]),
        ("ggml_backend_dev_description", text, [pointer]),
        ("ggml_backend_dev_type", ctypes.c_int, [pointer]),
        ("ggml_backend_dev_memory", None, [pointer, ctypes.POINTER(size), ctypes.POINTER(size)]),
        ("ggml_quantize_init", None, [integer]),
        ("ggml_quantize_requires_imatrix", ctypes.c_bool, [integer]),
        ("ggml_quantize_chunk", size, [integer, pointer, pointer, long, long, long, pointer]),
        ("ggml_validate_row_data", ctypes.c_bool, [integer, pointer, size]),
        ("ggml_get_type_traits", pointer, [integer]),
        ("ggml_op_name", text, [integer]),
        ("ggml_tensor_overhead", size, []),
        ("ggml_backend_buffer_is_host", ctypes.c_bool, [pointer]),
        ("ggml_backend_tensor_get", None, [pointer, pointer, size, size]),
        ("ggml_backend_tensor_set", None, [pointer, pointer, size, size]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def commit() -> str:
    """The commit of llama.cpp that was compiled in."""
    return str(ggml().ggml_commit().decode().removesuffix("-dirty"))


def because() -> str:
    """The last thing that llama.cpp complained about, as the tail of a sentence."""
    lines = [line for line in log_tail if "failed to load model" not in line]
    return f": {lines[-1]}" if lines else ""
