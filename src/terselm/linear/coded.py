"""Forms made of codes, and how they are trained through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from terselm.linear.base import Cost, LinearOp


class CodedOp(LinearOp):
    """A form whose numbers are codes: quantized, codebook, binary codes."""

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


class Latent(LinearOp):
    """A float matrix that computes with its coded form; for training only, never in a file.

    Forward it is the coded form of `weight`, backward the gradient passes to `weight` as if
    there were no rounding (straight-through estimator, Bengio et al. 2013, arXiv 1308.3432).

    Parameters
    ----------
    coded : CodedOp
        The form to train; its matrix is where `weight` starts.
    """

    kind: ClassVar[str] = "latent"

    def __init__(self, coded: CodedOp) -> None:
        super().__init__(*coded.shape)
        self.weight = nn.Parameter(coded.dense().detach().clone())
        # Not a submodule: its scales and codebooks follow `weight` and are not trained.
        self._coded: list[CodedOp] = [coded]

    @property
    def coded(self) -> CodedOp:
        """The coded form of the weight as it was when it was last computed."""
        return self._coded[0]

    def dense(self) -> Tensor:
        """Return the matrix of the coded form; gradients reach `weight`."""
        if self.training:
            self._coded[0] = self.coded.reround(self.weight.detach())
        # The difference is zero, so the value is the rounded one to the last bit.
        return self.coded.dense().detach() + (self.weight - self.weight.detach())

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
        return {"spec": self.coded.spec(), "tensors": self.coded.tensors()}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Put the coded form back."""
        coded = type(self.coded).from_file(state["spec"], state["tensors"])
        if not isinstance(coded, CodedOp) or coded.spec() != self.coded.spec():
            raise ValueError(f"its codes are {state['spec']}, here {self.coded.spec()}")
        self._coded[0] = coded.to(self.weight.device)

    def settle(self) -> None:
        """Round one last time."""
        self._coded[0] = self.coded.reround(self.weight.detach())


def with_latents(op: LinearOp, name: str = "") -> LinearOp:
    """Return the form with every coded leaf replaced by a `Latent`."""
    return op.map_leaves(_when(CodedOp, lambda leaf: Latent(leaf)), name)


def without_latents(op: LinearOp, name: str = "") -> LinearOp:
    """Return the form with every `Latent` replaced by its coded form."""
    return op.map_leaves(_when(Latent, lambda leaf: leaf.coded), name)


def _when(
    sort: type[LinearOp], change: Callable[..., LinearOp]
) -> Callable[[LinearOp, str], LinearOp]:
    return lambda leaf, name: change(leaf) if isinstance(leaf, sort) else leaf
