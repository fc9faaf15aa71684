"""Which processor trains, and what it can do."""

import ctypes
import platform
from functools import cache

import torch

from cnnlab.inquiry.errors import LabError


def resolve_device(device: str = "auto") -> str:
    """Return the device to train on: for "auto" the first available one of cuda, mps, cpu.

    Raises:
        LabError: the requested device isn't available.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [name for name, is_there in present.items() if is_there]
    if device == "auto":
        return there[0]
    if device.split(":")[0] not in there:
        raise LabError(f"device={device!r} is not on this machine: choose auto or {' or '.join(there)}.")
    return device


def device_name(device: str) -> str:
    """Return the device and its kind of processor; the last bits of a result depend on them."""
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device == "cpu":
        return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    return device


def has_bf16(device: str) -> bool:
    """Return whether the processor is faster in bfloat16 than in float32; one that has to emulate it isn't.

    Intel's processors since Sapphire Rapids, which have avx512_fp16, do so with AMX alone, and a virtual machine may
    hide that: BASE then took 5.0 s instead of 3.3 s for 10,000 images on one of them (n = 2 each).
    """
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities() if device == "cpu" else {}
    needs_amx = known.get("avx512_fp16") and "Intel" in str(known.get("cpu_name"))
    return bool(known.get("amx_bf16") or (known.get("avx512_bf16") and not needs_amx))


def resolve_precision(precision: str, device: str) -> str:
    """Return the precision to train in: for "auto" bf16 where the processor is faster in it, else float32."""
    if precision != "auto":
        return precision
    return "bf16" if has_bf16(device) else "float32"


@cache
def keep_freed_memory() -> None:
    """Make the C library keep the memory that a training step frees, since the next step needs it again.

    By default glibc returns every large block to the system and gets it back page by page.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 32 * 2**20)  # the highest that glibc accepts
        libc.mallopt(trim_threshold, 2**30)
