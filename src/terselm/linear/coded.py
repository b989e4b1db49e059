"""Forms made of codes, and how they are trained through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from terselm.linear.base import Cost, LinearOp

SHARES = (0.25, 0.5, 0.75, 1.0)
"""How far towards the weight that was rounded a latent weight is tried to start."""


class CodedOp(LinearOp):
    """A form whose numbers are codes: quantized, codebook, binary codes.

    Attributes
    ----------
    codes : Tensor
        Integers; [out, in] where every number has a code of its own.
    """

    codes: Tensor

    def reround(self, weight: Tensor) -> CodedOp:
        """Return a form with the same options whose codes stand for `weight`.

        It is called once a window in quantization-aware training, so it must be fast: start
        from the scales or the codebook at hand and improve them once, do not search anew.

        Parameters
        ----------
        weight : Tensor
            float32 [out, in].
        """
        raise NotImplementedError


class _StraightThrough(torch.autograd.Function):
    """The rounded matrix, whose gradient is that of the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class Latent(LinearOp):
    """A float matrix that computes with its coded form; for training only, never in a file.

    Forward it is the coded form of `weight`, backward the gradient passes to `weight` as if
    there were no rounding (straight-through estimator, Bengio et al. 2013, arXiv 1308.3432).

    Parameters
    ----------
    coded : CodedOp
        The form to train.
    weight : Tensor or None
        float32 [out, in], what was rounded. `weight` starts as near to it as the codes allow; if
        not given, at the matrix of the form.
    """

    kind: ClassVar[str] = "latent"

    def __init__(self, coded: CodedOp, weight: Tensor | None = None) -> None:
        super().__init__(*coded.shape)
        self.weight = nn.Parameter(_start(coded, weight))
        # Not a submodule: its scales and codebooks follow `weight` and are not trained.
        self._coded: list[CodedOp] = [coded]
        self._stale = False

    @property
    def coded(self) -> CodedOp:
        """The coded form of the weight as it was when it was last rounded."""
        return self._coded[0]

    def dense(self) -> Tensor:
        """Return the matrix of the coded form; gradients reach `weight`."""
        if self.training:
            self._round()
            self._stale = True  # the next step changes the weight
        result: Tensor = _StraightThrough.apply(self.weight, self.coded.dense().detach())
        return result

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        return nn.functional.embedding(ids, self.dense())

    def cost(self) -> Cost:
        """Return the cost of the coded form."""
        return self.coded.cost()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the coded form."""
        return self.coded.tensors()

    def spec(self) -> dict[str, object]:
        """Return the spec of the coded form."""
        return self.coded.spec()

    def parameter_count(self) -> int:
        """Return that of the coded form."""
        return self.coded.parameter_count()

    def training_state(self) -> dict[str, Any]:
        """Return the coded form: the next rounding starts from its scales."""
        tensors = {name: tensor.cpu().clone() for name, tensor in self.coded.tensors().items()}
        return {"spec": self.coded.spec(), "tensors": tensors, "stale": self._stale}

    def kept_state(self) -> dict[str, Any]:
        """Return the coded form: other scales make other codes of the same weight."""
        return self.training_state()

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Put the coded form back."""
        coded = type(self.coded).from_file(state["spec"], state["tensors"])
        if not isinstance(coded, CodedOp) or coded.spec() != self.coded.spec():
            raise ValueError(f"its codes are {state['spec']}, here {self.coded.spec()}")
        self._coded[0] = coded.to(self.weight.device)
        self._stale = bool(state["stale"])

    def train(self, mode: bool = True) -> Latent:
        """Change the mode; what is evaluated is made of the codes of the weight as it is."""
        if not mode:
            self.settle()
        super().train(mode)
        return self

    def settle(self) -> None:
        """Round once more if the weight was trained since; else the codes stay as they are."""
        if self._stale:
            self._round()

    def _round(self) -> None:
        self._coded[0] = self.coded.reround(self.weight.detach())
        self._stale = False


def with_latents(
    op: LinearOp, name: str = "", weights: Mapping[str, Tensor] | None = None
) -> LinearOp:
    """Return the form with every coded leaf replaced by a `Latent`.

    Parameters
    ----------
    op : LinearOp
    name : str
        Its name in the model.
    weights : mapping of str to Tensor, optional
        What was rounded, float32 [out, in], by the name of the leaf.
    """
    known = weights or {}

    def replaced(leaf: LinearOp, leaf_name: str) -> LinearOp:
        return Latent(leaf, known.get(leaf_name)) if isinstance(leaf, CodedOp) else leaf

    return op.map_leaves(replaced, name)


def without_latents(op: LinearOp, name: str = "") -> LinearOp:
    """Return the form with every `Latent` replaced by its coded form."""
    return op.map_leaves(lambda leaf, _: leaf.coded if isinstance(leaf, Latent) else leaf, name)


def _start(coded: CodedOp, weight: Tensor | None) -> Tensor:
    # In the middle of its interval a weight feels no small change; where it was, some do.
    start = coded.dense().detach().clone()
    if weight is None or weight.shape != start.shape or coded.codes.shape != start.shape:
        return start
    middle = start.clone()
    for share in SHARES:
        candidate = torch.lerp(middle, weight.detach().to(middle), share)
        same = coded.reround(candidate).codes == coded.codes
        start = torch.where(same, candidate, start)
    return start
