"""One projection for each layer, which its recurrence and the next layer share."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from terselm.cells.base import RecurrentCell
from terselm.cells.gru import GRU
from terselm.cells.projected_gru import ProjectedGRU
from terselm.compress.base import OPTIONS, Context, ModelMethod, register_method, wrong_form
from terselm.compress.factorization import DAMPING, Damping, weighted_svd, word_weights
from terselm.compress.readers import input_readers, stacked_input_matrix
from terselm.compress.sensitivity import output_sensitivities
from terselm.compress.shared_projection import shared_right_factor, unit_shares
from terselm.compress.statistics import Statistics, collect
from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel

PROJECTED = {
    "gru": "projected_gru",
    "rnn_tanh": "projected_rnn_tanh",
    "rnn_relu": "projected_rnn_relu",
}
"""The cell that has a projection, where it is another one."""
Rank = Annotated[int, Field(ge=1)]


@register_method("shared_projection")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class SharedProjection(ModelMethod):
    """Give every layer one projection m = P h that all readers of h share.

    The recurrent matrix of a layer and the input matrix of the next one (or the output layer)
    become left factors over m, and P spans the leading right singular vectors of the two stacked.
    For LSTM this is the recurrent projection, for plain RNNs a cell of its own. The embedding
    gets the same size, by a decomposition of its own.

    Paper: Grachev, Ignatov, Savchenko 2019 (arXiv 1902.02380), section 3.2, which trains such
    models from scratch; starting from a trained one follows Prabhavalkar et al. 2016
    (arXiv 1603.08042).

    Recipe::

        - {method: shared_projection, rank: 128}
        - {method: recover, epochs: 3}

    Cost: for LSTM layers of k units 4 · r · (2 k) + r · k numbers in place of 8 · k², and r for
    each word in place of k, twice. A GRU becomes the paper's variant, whose state has r numbers:
    gates do not commute with a projection, so for GRU this is only a start for recovery.

    When not: for one matrix; and where the projection has to be small, since what the next layer
    and the recurrence read then has to fit into the same few numbers.

    Parameters
    ----------
    rank : int
        Size r of the projection, less than every layer's output.
    weighting : {"inputs", "none"} or None
        "inputs" weights h by its second moment, and rows by how much the loss feels them, on
        calibration text. None does so where there is text.
    damping : float
        Added to the second moment, as a share of the mean of its diagonal; at least 1e-8.
    """

    rank: Rank
    weighting: Literal["inputs", "none"] | None = None
    damping: Damping = DAMPING

    def apply(self, model: LanguageModel, context: Context) -> LanguageModel:
        """Return a new model with projections.

        Raises
        ------
        UsageError
            If the rank is too large, a matrix is not dense, or text is asked for and missing.
        """
        self._check(model)
        statistics, felt = self._measure(model, context)
        layers = [
            self._factor_layer(model, number, statistics, felt)
            for number in range(model.config.layers)
        ]
        config = self._config(model)
        with torch.device("meta"):
            result = LanguageModel(config, model.vocabulary)
        result.provenance = dict(model.provenance)
        weights, incoming = self._embedding(model, config, layers, statistics)
        biases = {"output.bias": model.output.bias.detach()}
        for number, (cell, (recurrent, reader, projection)) in enumerate(
            zip(model.layers(), layers, strict=True)
        ):
            parts = _new_cell(cell, incoming, recurrent, projection)
            target = result.layers()[number]
            for name, tensor in parts.items():
                holder = biases if name in target.bias_names() else weights
                holder[f"cells.{number}.{name}"] = tensor
            incoming = reader
        if not config.tied:
            weights["output"] = incoming
        for name, op in result.weights().items():
            result.replace_weight(name, Dense(weights[name].reshape(op.shape), _type_of(model)))
        for name in result.biases():
            result.replace_bias(name, biases[name].clone())
        return result

    def _check(self, model: LanguageModel) -> None:
        if model.output.inputs() != ["output"]:
            raise UsageError(
                "works on an output layer of one matrix, and this one has "
                f"{', '.join(model.output.weights())}; leave it out"
            )
        for name, op in model.weights().items():
            if not isinstance(op, Dense):
                raise wrong_form(self.name, [Dense.kind], name, op)
        most = min(cell.output_size for cell in model.layers()) - 1
        if most < 1:
            raise UsageError("a layer with an output of 1 cannot be projected")
        if self.rank > most:
            raise UsageError(
                f"rank {self.rank} must be smaller than every layer's output; use at most {most}"
            )

    def _measure(
        self, model: LanguageModel, context: Context
    ) -> tuple[Statistics | None, dict[str, float]]:
        if self.weighting == "none" or (self.weighting is None and context.calibration is None):
            return None, {}
        if context.calibration is None:
            raise UsageError("needs calibration text; give --data")
        statistics = collect(model, context.calibration)
        return statistics, output_sensitivities(model, context.calibration)

    def _config(self, model: LanguageModel) -> ModelConfig:
        config = model.config
        embedding = config.embedding
        if config.tied or self.rank < min(embedding, len(model.vocabulary)):
            embedding = self.rank
        values = config.model_dump() | {
            "cell": PROJECTED.get(config.cell, config.cell),
            "projection": self.rank,
            "embedding": embedding,
        }
        return ModelConfig(**values)

    def _factor_layer(
        self,
        model: LanguageModel,
        number: int,
        statistics: Statistics | None,
        felt: dict[str, float],
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return the recurrent left factors by name, that of the next reader, and P."""
        cell = model.layers()[number]
        recurrent = [name for name in ("gates_hh", "weight_hh") if hasattr(cell, name)]
        names = [f"cells.{number}.{name}" for name in recurrent]
        names += _next_readers(model, number)
        weights = model.weights()
        matrices = [weights[model.ties().get(name, name)].dense() for name in names]
        moment = row_weights = None
        if statistics is not None:
            moment = statistics.inputs[names[0]].second_moment
            row_weights = [
                word_weights(torch.from_numpy(statistics.token_counts)).to(matrix.device)
                if name == "output"
                else matrix.new_full(
                    (len(matrix),), max(felt.get(name, 0.0), 1e-12), dtype=torch.float64
                )
                for name, matrix in zip(names, matrices, strict=True)
            ]
        lefts, right = shared_right_factor(matrices, self.rank, moment, row_weights, self.damping)
        readers = lefts[len(recurrent) :]
        return dict(zip(recurrent, lefts, strict=False)), torch.cat(readers), right

    def _embedding(
        self,
        model: LanguageModel,
        config: ModelConfig,
        layers: list[tuple[dict[str, Tensor], Tensor, Tensor]],
        statistics: Statistics | None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the new embedding and the input matrices of the first layer over it."""
        words = model.embedding.dense()
        first = stacked_input_matrix(model, 0)
        if config.tied:
            # The embedding is the output layer too: both are over the last layer's projection.
            _, reader, right = layers[-1]
            return {"embedding": reader}, first @ right.T
        if config.embedding == model.config.embedding:
            return {"embedding": words}, first
        rows = None
        if statistics is not None:
            rows = word_weights(torch.from_numpy(statistics.token_counts)).to(words.device)
        left, right = weighted_svd(words, config.embedding, None, rows)
        return {"embedding": left}, first @ right.T


def _next_readers(model: LanguageModel, number: int) -> list[str]:
    """Return the matrices outside the layer that read its output."""
    if number + 1 == model.config.layers:
        return ["output"]
    return input_readers(model, number + 1)


def _type_of(model: LanguageModel) -> str:
    """Return float16 where all matrices are stored so."""
    types = {op.stored_type for op in model.weights().values() if isinstance(op, Dense)}
    return "float16" if types == {"float16"} else "float32"


def _new_cell(
    cell: RecurrentCell, incoming: Tensor, recurrent: dict[str, Tensor], projection: Tensor
) -> dict[str, Tensor]:
    """Return the matrices and biases of the projected cell by name.

    Parameters
    ----------
    cell : RecurrentCell
        The one it is made from.
    incoming : Tensor
        float32 [rows, new input size], all its input matrices over the new input, stacked.
    recurrent : dict of str to Tensor
        Its recurrent matrices over the projected output.
    projection : Tensor
        float32 [rank, output size].
    """
    outer = getattr(cell, "weight_hr", None)
    parts = {
        "weight_hr": projection @ outer.dense() if isinstance(outer, LinearOp) else projection,
        "bias": cell.bias.detach(),
    }
    if not isinstance(cell, GRU | ProjectedGRU):
        return parts | {"weight_ih": incoming, "weight_hh": recurrent["weight_hh"]}
    # A gate over units becomes one over projected numbers: the mean of what it is made of.
    shares = unit_shares(projection)
    size = projection.shape[1]
    if isinstance(cell, GRU):
        gates_hh, weight_hh = recurrent["weight_hh"].split([2 * size, size])
        gates_bias, bias = parts["bias"].split([2 * size, size])
        # The reset gate no longer multiplies the new gate's recurrent bias: take its usual value.
        bias = bias + gates_bias[:size].sigmoid() * cell.bias_hn.detach()
    else:
        assert isinstance(cell, ProjectedGRU)
        gates_hh, weight_hh = recurrent["gates_hh"], recurrent["weight_hh"]
        gates_bias, bias = cell.gates_bias.detach(), parts["bias"]
    gates_ih, weight_ih = incoming.split([2 * size, len(incoming) - 2 * size])

    def averaged(stacked: Tensor) -> Tensor:
        return torch.cat([shares @ gate for gate in stacked.chunk(2)])

    return parts | {
        "gates_ih": averaged(gates_ih),
        "gates_hh": averaged(gates_hh),
        "gates_bias": averaged(gates_bias),
        "weight_ih": weight_ih,
        "weight_hh": weight_hh,
        "bias": bias,
    }
