"""The adaptive softmax: frequent words are scored at once, rare ones by way of their cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from terselm.errors import TerselmError, UsageError
from terselm.linear.base import LinearOp, read_tensor
from terselm.linear.dense import Dense
from terselm.models.output import OUTPUTS, OutputLayer

if TYPE_CHECKING:
    from terselm.models.config import ModelConfig

ORDER = "output.order"
LARGEST_UINT16 = 65536


class Tail(nn.Module):
    """A cluster of rarer words: their scores are words · (down · h).

    Parameters
    ----------
    down : LinearOp
        [inner, hidden].
    words : LinearOp
        [words of the cluster, inner].
    """

    def __init__(self, down: LinearOp, words: LinearOp) -> None:
        super().__init__()
        self.down = down
        self.words = words

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Return natural-log probabilities within the cluster, [n, words], for [n, hidden]."""
        return torch.log_softmax(self.words(self.down(hidden)), dim=-1, dtype=torch.float32)


@OUTPUTS.register("adaptive")
class AdaptiveSoftmax(OutputLayer):
    """A softmax of two levels (Grave et al. 2017, arXiv 1609.04309).

    Words are ranked by frequency. The head scores the most frequent ones and the clusters of
    the others; p(word) = p(cluster) · p(word | cluster). The matrices of a cluster get smaller
    with its rank: cluster i has an inner size of hidden / division^(i + 1), unless the
    configuration has `cluster_sizes`.

    Parameters
    ----------
    head : LinearOp
        [cutoff + clusters, hidden].
    bias : Tensor
        float32 [cutoff + clusters], of the head.
    tails : list of Tail
        Most frequent words first.
    order : Tensor
        int64 [vocabulary], the ids of the words, most frequent first.
    """

    kind = "adaptive"

    order: Tensor
    rank: Tensor

    def __init__(self, head: LinearOp, bias: Tensor, tails: list[Tail], order: Tensor) -> None:
        super().__init__()
        self.head = head
        self.bias = nn.Parameter(bias)
        self.tails = nn.ModuleList(tails)
        self.register_buffer("order", order)
        self.register_buffer("rank", _inverse(order))

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse cutoffs that do not rise, too many of them, and a tied embedding."""
        if config.tied:
            raise ValueError("an adaptive output has no matrix of all words that could be tied")
        if not config.cutoffs:
            raise ValueError("an adaptive output needs cutoffs, such as 2000,10000")
        if any(left >= right for left, right in pairwise(config.cutoffs)):
            raise ValueError(f"cutoffs {list(config.cutoffs)} must rise")
        sizes = config.inner_sizes()
        if len(sizes) != len(config.cutoffs):
            raise ValueError(
                f"{len(sizes)} cluster_sizes for {len(config.cutoffs)} cutoffs; give as many"
            )
        if min(sizes) < 1:
            raise ValueError(
                f"{len(config.cutoffs)} clusters with division {config.division} leave nothing "
                f"of a hidden vector of {config.output_size}; use fewer cutoffs or a smaller "
                "division"
            )

    @classmethod
    def build(
        cls,
        config: ModelConfig,
        vocabulary_size: int,
        embedding: LinearOp,
        counts: npt.NDArray[np.int64] | None,
    ) -> AdaptiveSoftmax:
        """Return a layer with random weights; see `OutputLayer.build`.

        Without counts the words are ranked by id, which only makes sense where `load_tables`
        follows.
        """
        first, last = config.cutoffs[0], config.cutoffs[-1]
        if last >= vocabulary_size:
            raise UsageError(
                f"cutoffs: {last:,} must be below the {vocabulary_size:,} words of the vocabulary"
            )
        size = config.output_size
        head = Dense.initialize(first + len(config.cutoffs), size, 1 / math.sqrt(size))
        tails = []
        ranks = pairwise((*config.cutoffs, vocabulary_size))
        for inner, (start, stop) in zip(config.inner_sizes(), ranks, strict=True):
            tails.append(Tail(Dense.initialize(inner, size), Dense.initialize(stop - start, inner)))
        order = (
            torch.arange(vocabulary_size)
            if counts is None
            else torch.from_numpy(frequency_order(counts))
        )
        return cls(head, torch.zeros(head.out_features), tails, order.to(head.weight.device))

    @property
    def cutoff(self) -> int:
        """How many words the head scores."""
        return self.head.out_features - len(self.tails)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return `log_probabilities`: scores that are normalized already."""
        return self.log_probabilities(hidden)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Return natural-log probabilities [..., vocabulary]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        head = torch.log_softmax(self.head(flat) + self.bias, dim=-1, dtype=torch.float32)
        parts = [head[:, : self.cutoff]]
        for cluster, tail in enumerate(self._tails(), start=self.cutoff):
            parts.append(tail.log_probabilities(flat) + head[:, cluster : cluster + 1])
        by_rank = torch.cat(parts, dim=1)  # [n, vocabulary]
        return by_rank[:, self.rank].view(*hidden.shape[:-1], len(self.rank))

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return nats [...] for hidden [..., size] and int64 targets [...].

        Only the clusters that a target is in are computed.
        """
        flat = hidden.reshape(-1, hidden.shape[-1])
        ranks = self.rank[targets.flatten()]
        head = torch.log_softmax(self.head(flat) + self.bias, dim=-1, dtype=torch.float32)
        columns = ranks.clone()
        inner = torch.zeros_like(ranks, dtype=head.dtype)
        start = self.cutoff
        for cluster, tail in enumerate(self._tails(), start=self.cutoff):
            stop = start + tail.words.out_features
            members = ((ranks >= start) & (ranks < stop)).nonzero().squeeze(1)
            columns[members] = cluster
            # In training a cluster without targets is computed on nothing, so that its
            # parameters are in the graph, as processes that average their gradients need it.
            if len(members) or self.training:
                found = tail.log_probabilities(flat[members])
                places = (ranks[members] - start).unsqueeze(1)
                inner = inner.index_add(0, members, found.gather(1, places).squeeze(1))
            start = stop
        nats = -(head.gather(1, columns.unsqueeze(1)).squeeze(1) + inner)
        return nats.view(targets.shape)

    def weights(self) -> dict[str, LinearOp]:
        """Return `output.head`, `output.tails.0.down`, `output.tails.0.words`, ..."""
        found = {"output.head": self.head}
        for number, tail in enumerate(self._tails()):
            found[f"output.tails.{number}.down"] = tail.down
            found[f"output.tails.{number}.words"] = tail.words
        return found

    def inputs(self) -> list[str]:
        """Return the names of the weights that are multiplied with the hidden vector."""
        return [name for name in self.weights() if not name.endswith(".words")]

    def tables(self) -> dict[str, Tensor]:
        """Return `output.order`, uint16 or uint32 [vocabulary]; see `order`."""
        return {ORDER: self.order.cpu().to(_stored_type(len(self.order)))}

    def load_tables(self, tensors: Mapping[str, Tensor]) -> None:
        """Take another order of the words; see `OutputLayer.load_tables`."""
        size = len(self.order)
        stored = read_tensor(tensors, ORDER, _stored_type(size), (size,))
        order = stored.to(torch.int64)
        if not torch.equal(order.sort().values, torch.arange(size, device=order.device)):
            raise TerselmError(f"tensor {ORDER!r} does not hold every word exactly once")
        # A layer that is being filled may still lie on the device that holds no data.
        if not self.bias.is_meta:
            order = order.to(self.bias.device)
        self.order = order
        self.rank = _inverse(order)

    def _tails(self) -> list[Tail]:
        return [tail for tail in self.tails if isinstance(tail, Tail)]


def frequency_order(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the ids of words by falling count, int64 [words]; equal ones in order of id."""
    return np.argsort(-np.asarray(counts, dtype=np.int64), kind="stable").astype(np.int64)


def _inverse(order: Tensor) -> Tensor:
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank


def _stored_type(size: int) -> torch.dtype:
    return torch.uint16 if size <= LARGEST_UINT16 else torch.uint32
