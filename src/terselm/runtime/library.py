"""The C library: where it is, what its calls take, what its errors mean."""

from __future__ import annotations

import ctypes
import os
import sysconfig
from ctypes import POINTER, c_char_p, c_double, c_float, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

from terselm.errors import TerselmError, UsageError

VARIABLE = "TERSELM_LIBRARY"
NAMES = ("libterselm.so", "libterselm.dylib", "terselm.dll")
KERNELS = ("avx512vnni", "avx2", "neondot", "neon", "portable")
"""Every set of kernels that can run outside a browser, the fastest first."""

ARGUMENT = 1
MEMORY = 2
NO_TOKEN = 0xFFFFFFFF
MAX_TOKEN_BYTES = 255


class Options(ctypes.Structure):
    """`tlm_options`."""

    _fields_ = (
        ("batch", c_uint32),
        ("threads", c_uint32),
        ("kernels", c_char_p),
        ("preview", c_uint32),
        ("preview_mode", ctypes.c_int),
    )


class CDescription(ctypes.Structure):
    """`tlm_description`."""

    _fields_ = (
        ("format", c_uint32),
        ("cell", c_char_p),
        ("output", c_char_p),
        ("vocabulary_kind", c_char_p),
        ("vocabulary_size", c_uint32),
        ("embedding", c_uint32),
        ("layers", c_uint32),
        ("hidden", POINTER(c_uint32)),
        ("projection", c_uint32),
        ("matrices", c_uint32),
        ("tied", ctypes.c_bool),
        ("file_bytes", c_uint64),
        ("read_bytes", c_uint64),
    )


class Choice(ctypes.Structure):
    """`tlm_choice`."""

    _fields_ = (("token", c_uint32), ("log_probability", c_float))


# name: (what it returns, what it takes); pointers to numbers are passed as addresses.
CALLS: dict[str, tuple[object, list[object]]] = {
    "tlm_error_text": (c_char_p, [ctypes.c_int]),
    "tlm_open": (ctypes.c_int, [c_void_p, c_size_t, POINTER(c_void_p), c_char_p, c_size_t]),
    "tlm_open_file": (ctypes.c_int, [c_char_p, POINTER(c_void_p), c_char_p, c_size_t]),
    "tlm_open_trusted_file": (ctypes.c_int, [c_char_p, POINTER(c_void_p), c_char_p, c_size_t]),
    "tlm_open_size": (
        ctypes.c_int,
        [c_void_p, c_size_t, POINTER(c_size_t), c_char_p, c_size_t],
    ),
    "tlm_open_in": (
        ctypes.c_int,
        [c_void_p, c_size_t, c_void_p, c_size_t, POINTER(c_void_p), c_char_p, c_size_t],
    ),
    "tlm_model_bytes": (c_size_t, [c_void_p]),
    "tlm_opening_bytes": (c_size_t, [c_void_p]),
    "tlm_context_size": (ctypes.c_int, [c_void_p, POINTER(Options), POINTER(c_size_t)]),
    "tlm_close": (None, [c_void_p]),
    "tlm_describe": (ctypes.c_int, [c_void_p, POINTER(CDescription)]),
    "tlm_can_run": (ctypes.c_bool, [c_char_p]),
    "tlm_context_open": (ctypes.c_int, [c_void_p, POINTER(Options), POINTER(c_void_p)]),
    "tlm_context_close": (None, [c_void_p]),
    "tlm_context_kernels": (c_char_p, [c_void_p]),
    "tlm_context_preview": (c_uint32, [c_void_p]),
    "tlm_context_bytes": (c_size_t, [c_void_p]),
    "tlm_state_size": (c_size_t, [c_void_p]),
    "tlm_state_init": (ctypes.c_int, [c_void_p, c_void_p]),
    "tlm_state_saved_size": (c_size_t, [c_void_p]),
    "tlm_state_save": (ctypes.c_int, [c_void_p, c_void_p, c_void_p]),
    "tlm_state_restore": (ctypes.c_int, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "tlm_step": (ctypes.c_int, [c_void_p, c_void_p, c_uint32]),
    "tlm_step_many": (ctypes.c_int, [c_void_p, c_uint32, c_void_p, c_void_p]),
    "tlm_log_probabilities": (ctypes.c_int, [c_void_p, c_void_p, c_void_p]),
    "tlm_log_probabilities_many": (ctypes.c_int, [c_void_p, c_uint32, c_void_p, c_void_p]),
    "tlm_score_tokens": (ctypes.c_int, [c_void_p, c_void_p, c_void_p, c_uint32, c_void_p]),
    "tlm_score_sequence": (
        ctypes.c_int,
        [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, POINTER(c_double)],
    ),
    "tlm_rank_sequence": (
        ctypes.c_int,
        [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p],
    ),
    "tlm_top": (
        ctypes.c_int,
        [
            c_void_p,
            c_void_p,
            c_char_p,
            c_size_t,
            c_void_p,
            c_uint32,
            c_uint32,
            POINTER(Choice),
            POINTER(c_uint32),
        ],
    ),
    "tlm_start_token": (c_uint32, [c_void_p]),
    "tlm_unknown_token": (c_uint32, [c_void_p]),
    "tlm_token_text": (ctypes.c_int, [c_void_p, c_uint32, c_char_p, POINTER(c_uint32)]),
    "tlm_find_token": (c_uint32, [c_void_p, c_char_p, c_size_t]),
    "tlm_tokenize": (
        ctypes.c_int,
        [c_void_p, c_char_p, c_size_t, c_void_p, c_size_t, POINTER(c_size_t)],
    ),
}


def library_path() -> Path:
    """Return where the C library is: what TERSELM_LIBRARY says, or installed with this package.

    In a checkout what `make -C native` built last comes before what was installed.

    Raises
    ------
    TerselmError
        If there is none.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    package = Path(__file__).resolve().parent
    installed = Path(sysconfig.get_path("platlib")) / "terselm" / "runtime"  # if editable
    source = package.parents[2] / "native" / "build" / "plain"  # a checkout
    found = [folder / name for folder in (package, source, installed) for name in NAMES]
    for path in found:
        if path.exists():
            return path
    raise TerselmError(
        "the C library is not built; run make -C native, or install a wheel of terselm"
    )


@cache
def library() -> ctypes.CDLL:
    """Return the loaded library. Its calls release the GIL.

    Raises
    ------
    TerselmError
        If it cannot be loaded.
    """
    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
        for name, (returns, takes) in CALLS.items():
            call = getattr(loaded, name)
            call.restype, call.argtypes = returns, takes
    except (OSError, AttributeError) as error:
        raise TerselmError(f"{path} cannot be loaded: {error}") from None
    return loaded


def kernel_names() -> list[str]:
    """Return the sets of kernels that this machine can run, the fastest first."""
    return [name for name in KERNELS if library().tlm_can_run(name.encode())]


def check(status: int, what: str) -> None:
    """Raise what a status stands for.

    Raises
    ------
    UsageError
        For an argument that cannot be.
    TerselmError
        For everything else that is not success.
    """
    if status == 0:
        return
    text = library().tlm_error_text(status).decode()
    raise (UsageError if status == ARGUMENT else TerselmError)(f"{what}: {text}")
