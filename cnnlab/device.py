"""Which processor trains."""

import torch

from cnnlab.errors import LabError


def resolve_device(device: str = "auto") -> str:
    """Return the device to train on: for "auto" the first that is there of cuda, mps, cpu.

    Raises:
        LabError: the device that was asked for isn't there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [name for name, is_there in present.items() if is_there]
    if device == "auto":
        return there[0]
    if device.split(":")[0] not in there:
        raise LabError(f"device={device!r} is not on this machine: choose auto or {' or '.join(there)}.")
    return device


def device_name(device: str) -> str:
    """Return the device with the kind of processor, on which the last bits of a result depend."""
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device == "cpu":
        return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    return device


def describe_device(device: str = "auto") -> str:
    """Return what `resolve_device` chooses, in words, such as "cpu (AVX2), 2 threads"."""
    return f"{device_name(resolve_device(device))}, {torch.get_num_threads()} threads"
