"""In which numbers the products of a training step are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def resolved(precision: Precision, device: torch.device) -> Precision:
    """Return the precision itself, for "auto" bfloat16 where the device multiplies it faster.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
    device : torch.device

    Returns
    -------
    {"float32", "bfloat16"}
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # torch has no public name for what it asks the processor. Without tiles bfloat16 is no
        # faster: on a Xeon with AVX-512 BF16 alone oneDNN needs twice the time of float32.
        faster = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "bfloat16" if faster else "float32"


def mixed(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which matrices are multiplied in a precision.

    Weights, their gradients, softmax and loss stay float32 (Micikevicius et al. 2018,
    arXiv 1710.03740; with bfloat16 no scaling of the loss is needed, Kalamkar et al. 2019,
    arXiv 1905.12322).

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
    device : torch.device
    """
    bfloat16 = resolved(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
