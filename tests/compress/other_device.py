"""A device that is not there, to see on any machine that tensors of two devices never meet."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe
from terselm.linear.dense import Dense
from terselm.models.language_model import LanguageModel

DEVICE = torch.device("cuda", 0)


class Elsewhere(torch.Tensor):
    """A tensor whose numbers are on the CPU, and which says that it is on `DEVICE`."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class OtherDevice(TorchFunctionMode):
    """Inside it what is computed from tensors elsewhere is elsewhere, and mixing them is an error.

    As in torch, numbers (tensors without dimensions) may be anywhere, and so may indices into a
    tensor elsewhere.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return DEVICE if isinstance(args[0], Elsewhere) else func(*args)
        if func == torch.Tensor.cpu:
            return func(*args).as_subclass(torch.Tensor)
        if func == torch.Tensor.to:
            return _moved(*args, **kwargs)
        if kwargs.get("device") == DEVICE:
            del kwargs["device"]
            return _elsewhere(func(*args, **kwargs))
        indexed = func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
        checked = (args[0], *args[2:]) if indexed else (args, kwargs)
        tensors = [leaf for leaf in tree_leaves(checked) if isinstance(leaf, torch.Tensor)]
        there = any(isinstance(tensor, Elsewhere) for tensor in tensors)
        if indexed and not there:
            there = any(isinstance(leaf, Elsewhere) for leaf in tree_leaves(args[1]))
        here = any(not isinstance(tensor, Elsewhere) and tensor.dim() for tensor in tensors)
        assert not (here and there), f"{func.__name__}: tensors on two devices"
        result = func(*args, **kwargs)
        return _elsewhere(result) if there else result


def _moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Stands for `Tensor.to`."""
    there, dtype = isinstance(tensor, Elsewhere), tensor.dtype
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, torch.Tensor):
            there, dtype = isinstance(value, Elsewhere), value.dtype
        elif isinstance(value, str | torch.device):
            there = torch.device(value) == DEVICE
    moved = torch.Tensor.to(tensor, dtype)
    if there == isinstance(moved, Elsewhere):
        return moved
    return moved.as_subclass(Elsewhere if there else torch.Tensor)


def _elsewhere(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return result if isinstance(result, Elsewhere) else result.as_subclass(Elsewhere)
    if isinstance(result, tuple | list):
        return type(result)([_elsewhere(part) for part in result])
    return result


def to_other_device(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as one that is on `DEVICE` inside `OtherDevice`."""
    return _elsewhere(tensor)


def put_matrices_elsewhere(monkeypatch: Any) -> None:
    """Let dense matrices be on `DEVICE` inside `OtherDevice`, and nothing else of a model."""
    here = Dense.dense
    monkeypatch.setattr(Dense, "dense", lambda op: _elsewhere(here(op)))


def compress_elsewhere(
    monkeypatch: Any, model: LanguageModel, items: list[dict[str, Any]], context: Context
) -> LanguageModel:
    """Compress a model whose matrices are elsewhere; the context's statistics must be there."""
    put_matrices_elsewhere(monkeypatch)
    with OtherDevice():
        result = compress(model, Recipe.from_list(items), context).model
    monkeypatch.undo()
    return result
