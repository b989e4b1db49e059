"""A matrix that becomes sparse while it is trained; never in a file."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from terselm.compress.schedule import CubicSchedule
from terselm.compress.sparsity import mask_of_largest, zeros_for
from terselm.linear.base import Cost, LinearOp
from terselm.linear.positions import ElementPattern
from terselm.linear.sparse import Sparse


class GradualSparse(LinearOp):
    """A float matrix of which ever fewer weights, the largest ones, take part in training.

    It needs nothing of the training loop: it counts a step whenever the optimizer has changed
    its weights, and sets those that have gone to zero in place. In evaluation it always
    computes at the final sparsity, and what it computes follows from the weights alone. So a
    validation perplexity is that of the model which would be stored now, and going back to
    earlier weights gives the model that was validated then.

    Parameters
    ----------
    weight : Tensor
        float [out, in].
    schedule : CubicSchedule
    stored_type : {"float32", "float16"}
        Of the sparse form that it becomes.
    """

    kind: ClassVar[str] = "gradual_sparse"

    def __init__(
        self, weight: Tensor, schedule: CubicSchedule, stored_type: str = "float32"
    ) -> None:
        super().__init__(*weight.shape)
        self.schedule = schedule
        self.stored_type = stored_type
        self.weight = nn.Parameter(weight.detach().to(torch.float32).clone())
        self._steps = 0
        self._seen: int | None = None
        self._mask: Tensor | None = None
        self._sparsity = 0.0

    @property
    def steps(self) -> int:
        """Training steps so far, that after the last forward pass included."""
        return self._steps + (self._seen is not None and self.weight._version != self._seen)

    @property
    def reached(self) -> bool:
        """Whether training has come to the end of the schedule."""
        return self.steps >= self.schedule.end

    def mask(self) -> Tensor:
        """Return which weights take part now, bool [out, in]."""
        return self._training_mask() if self.training else self.final_mask()

    def final_mask(self) -> Tensor:
        """Return which weights would stay if training ended now, bool [out, in]."""
        return self._largest(self.schedule.final).to(self.weight.device)

    def _training_mask(self) -> Tensor:
        if self._mask is None or self.weight._version != self._seen:
            if self._seen is not None:
                self._steps += 1
            sparsity = self.schedule.sparsity(self._steps)
            if self._mask is None or sparsity != self._sparsity:
                self._mask, self._sparsity = self._largest(sparsity), sparsity
            with torch.no_grad():  # momentum may have moved weights that are out
                self.weight.mul_(self._mask.to(self.weight.device))
            self._seen = self.weight._version
        return self._mask.to(self.weight.device)

    def _largest(self, sparsity: float) -> Tensor:
        magnitudes = self.weight.detach().abs()
        return mask_of_largest(magnitudes, zeros_for(magnitudes.numel(), sparsity))

    def dense(self) -> Tensor:
        """Return the weights that take part, float32 [out, in]."""
        return self.weight * self.mask()

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        return nn.functional.embedding(ids, self.weight) * self.mask()[ids]

    def finished(self) -> Sparse:
        """Return the sparse form at the final sparsity."""
        return Sparse.of(self.weight, ElementPattern(self.final_mask()), self.stored_type)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the finished form."""
        return self.finished().tensors()

    def spec(self) -> dict[str, Any]:
        """Return the spec of the finished form."""
        return self.finished().spec()

    def cost(self) -> Cost:
        """Return the cost of the finished form."""
        return self.finished().cost()

    def parameter_count(self) -> int:
        """Return how many weights stay at the end."""
        return self.weight.numel() - zeros_for(self.weight.numel(), self.schedule.final)
