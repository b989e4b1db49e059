"""Matrices with learned noise on their weights; for training only, never in a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from terselm.linear.base import Cost, LinearOp
from terselm.linear.positions import ElementPattern
from terselm.linear.sparse import Sparse

THRESHOLD = 3.0
"""A weight whose log α is above has a dropout rate above 0.95."""
LARGEST = 8.0
"""log α is cut here, where noise has long drowned the weight."""
INITIAL_LOG_VARIANCE = -10.0
K1, K2, K3 = 0.63576, 1.87320, 1.48695
TINY = 1e-8


def kl_divergence(log_alpha: Tensor) -> Tensor:
    """Return the KL divergence to the log-uniform prior, in nats, up to a constant, per weight.

    The approximation of Molchanov, Ashukha, Vetrov 2017 (arXiv 1701.05369), eq. 14, with the
    sign turned, and zero for infinite α.
    """
    negative = K1 * torch.sigmoid(K2 + K3 * log_alpha) - 0.5 * nn.functional.softplus(-log_alpha)
    return K1 - negative


class VariationalSparse(LinearOp):
    """A matrix whose weights are Gaussian, with a mean and a variance to learn.

    In training every use in a window draws the whole matrix once (as Chirkova, Lobacheva,
    Vetrov 2018, arXiv 1810.10927, do for recurrent networks). The KL divergence joins the loss
    by itself: where gradients pass through the matrix, `kl_weight` times the gradient of the
    KL is added to those of mean and variance, once for each time the optimizer has changed
    them (by their versions; torch's fused optimizers need
    `torch.autograd.graph.increment_version`). So a training loop need not know of it, and the
    loss that it prints is without it. In evaluation the matrix is its mean, without the weights
    whose noise is above the threshold.

    Parameters
    ----------
    weight : Tensor
        float [out, in], where the means start.
    kl_weight : float
        Of the KL of one weight against the mean loss of a token; 1 / (tokens of the training
        text) is the variational bound.
    per : {"weight", "row"}
        Whether each weight has noise of its own, or each row (a word, in an embedding) a
        factor of mean 1 with noise, so that rows go whole.
    stored_type : {"float32", "float16"}
        Of the sparse form that it becomes.
    """

    kind: ClassVar[str] = "variational_sparse"

    def __init__(
        self,
        weight: Tensor,
        kl_weight: float,
        per: Literal["weight", "row"] = "weight",
        stored_type: str = "float32",
    ) -> None:
        super().__init__(*weight.shape)
        self.kl_weight = kl_weight
        self.per = per
        self.stored_type = stored_type
        self.weight = nn.Parameter(weight.detach().to(torch.float32).clone())
        noisy = self.weight if per == "weight" else self.weight[:, :1]
        self.log_variance = nn.Parameter(torch.full_like(noisy.detach(), INITIAL_LOG_VARIANCE))
        self.factor: nn.Parameter | None = None
        if per == "row":
            self.factor = nn.Parameter(torch.ones_like(noisy.detach()))
        self._charged: tuple[int, int] | None = None

    def log_alpha(self) -> Tensor:
        """Return log(variance / mean²), [out, in] or [out, 1]."""
        mean = self.weight if self.factor is None else self.factor
        log_alpha = self.log_variance - torch.log(mean.square() + TINY)
        # Not cut below: a weight that starts there would get no gradient and stay for good.
        return log_alpha.clamp(max=LARGEST)

    def regularization_loss(self) -> Tensor:
        """Return `kl_weight` times the KL of all weights, a scalar, to be made small."""
        return self.kl_weight * kl_divergence(self.log_alpha()).sum()

    def final_mask(self) -> Tensor:
        """Return which weights would stay if training ended now, bool [out, in]."""
        return (self.log_alpha() <= THRESHOLD).expand(self.shape)

    def _mean(self) -> Tensor:
        return self.weight if self.factor is None else self.weight * self.factor

    def dense(self) -> Tensor:
        """Return one draw of the matrix in training, its thresholded mean otherwise."""
        if not self.training:
            return self._mean() * self.final_mask()
        deviation = torch.exp(0.5 * self.log_variance)
        noise = deviation * torch.randn_like(deviation)
        if self.factor is None:
            return self._charge(self.weight + noise)
        return self._charge(self.weight * (self.factor + noise))

    def rows(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, float32 [*ids.shape, in]."""
        return nn.functional.embedding(ids, self.dense())

    def _charge(self, drawn: Tensor) -> Tensor:
        """Add the gradient of the regularization, once for each state of the parameters."""
        state = self.weight._version, self.log_variance._version
        if not torch.is_grad_enabled() or state == self._charged:
            return drawn
        self._charged = state
        charged: Tensor = _WithLoss.apply(drawn, self.regularization_loss())
        return charged

    def finished(self) -> Sparse:
        """Return the sparse form of what is left."""
        pattern = ElementPattern(self.final_mask())
        return Sparse.of(self._mean(), pattern, self.stored_type)

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
        """Return how many weights are left."""
        return int(self.final_mask().sum())


def regularization_losses(module: nn.Module) -> Iterator[Tensor]:
    """Yield the regularization loss of every variational matrix of a model, for reports."""
    for part in module.modules():
        if isinstance(part, VariationalSparse):
            yield part.regularization_loss()


class _WithLoss(torch.autograd.Function):
    """Hands its first argument through; backward the second one is a loss of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor) -> Tensor:
        ctx.save_for_backward(loss)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (loss,) = ctx.saved_tensors
        return gradients[0], torch.ones_like(loss)
