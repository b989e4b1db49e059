"""A recurrent language model: embedding, stacked cells, output layer."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from terselm.cells.apart import run_sequence
from terselm.cells.base import CELLS, RecurrentCell, State
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.models.config import ModelConfig
from terselm.models.output import INITIAL_BOUND, OUTPUTS, OutputLayer
from terselm.models.regularization import NONE, Regularization
from terselm.text.vocabulary import Vocabulary

ATTRIBUTES = {"output": "output.weight", "output_projection": "output.projection"}
"""Where weights are whose name is not the path to them."""


@dataclass(frozen=True)
class Hidden:
    """What the recurrent part of a model returns.

    Attributes
    ----------
    output : Tensor
        float32 [time, batch, size], what the output layer reads (after dropout).
    raw : Tensor
        float32 [time, batch, size], the last layer before dropout.
    state : list of State
        The state after the last step, one a layer.
    """

    output: Tensor
    raw: Tensor
    state: list[State]


class LanguageModel(nn.Module):
    """An embedding, a stack of recurrent cells and an output layer, with the vocabulary.

    Parameters
    ----------
    config : ModelConfig
        Sizes and kinds.
    vocabulary : Vocabulary
        The words; its length is the height of the embedding and of the output layer.
    counts : ndarray or None
        int64 [vocabulary], how often each word is in the training text; for output layers that
        treat frequent words in another way than rare ones.

    Attributes
    ----------
    provenance : dict
        Where the model comes from (training, recipe, perplexities, parent), as JSON values.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        counts: npt.NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.provenance: dict[str, Any] = {}
        size = len(vocabulary)
        self.embedding: LinearOp = Dense.initialize(size, config.embedding, INITIAL_BOUND)
        cell = CELLS.get(config.cell)
        self.cells = nn.ModuleList(cell(sizes) for sizes in config.cell_sizes())
        output = OUTPUTS.get(config.output)
        self.output: OutputLayer = output.build(config, size, self.embedding, counts)

    def layers(self) -> list[RecurrentCell]:
        """Return the cells, first layer first."""
        return [cell for cell in self.cells if isinstance(cell, RecurrentCell)]

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.output.bias.device

    def initial_state(self, batch: int) -> list[State]:
        """Return the state at the start of a text, zeros [batch, size], one a layer."""
        return [cell.initial_state(batch, self.device) for cell in self.layers()]

    def hidden(
        self, tokens: Tensor, state: list[State], regularization: Regularization = NONE
    ) -> Hidden:
        """Run the recurrent part.

        Parameters
        ----------
        tokens : Tensor
            int64 [time, batch].
        state : list of State
            The state before the first token.
        regularization : Regularization
            Acts in training mode only.
        """
        drop = regularization if self.training else NONE
        x = drop.drop_words(self.embedding.rows(tokens), tokens, len(self.vocabulary))
        x = drop.drop(x, drop.input)
        raw = x
        after = []
        for number, (cell, before) in enumerate(zip(self.layers(), state, strict=True), start=1):
            raw, cell_state = run_sequence(cell, x, before, drop.weight_drop)
            after.append(cell_state)
            x = drop.drop(raw, drop.output if number == len(self.cells) else drop.hidden)
        return Hidden(x, raw, after)

    def forward(self, tokens: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
        """Return logits [time, batch, vocabulary] and the state after."""
        hidden = self.hidden(tokens, state)
        return self.output.logits(hidden.output), hidden.state

    def negative_log_likelihood(
        self, tokens: Tensor, targets: Tensor, state: list[State]
    ) -> tuple[Tensor, list[State]]:
        """Return nats [time, batch] of int64 targets [time, batch], and the state after."""
        hidden = self.hidden(tokens, state)
        return self.output.negative_log_likelihood(hidden.output, targets), hidden.state

    def weights(self) -> dict[str, LinearOp]:
        """Return every matrix by name, in the order of the computation, a tied one once."""
        found = {"embedding": self.embedding}
        for number, cell in enumerate(self.layers()):
            for name in cell.weight_names():
                found[f"cells.{number}.{name}"] = getattr(cell, name)
        for name, op in self.output.weights().items():
            if op is not self.embedding:
                found[name] = op
        return found

    def biases(self) -> dict[str, nn.Parameter]:
        """Return every bias vector by name."""
        found = {}
        for number, cell in enumerate(self.layers()):
            for name in cell.bias_names():
                found[f"cells.{number}.{name}"] = getattr(cell, name)
        found["output.bias"] = self.output.bias
        return found

    def stored_biases(self) -> dict[str, Tensor]:
        """Return every bias vector by name as the file holds it, in its type."""
        biases = self.biases().items()
        return {name: bias.detach().to(self._bias_type(name)) for name, bias in biases}

    def _bias_type(self, name: str) -> torch.dtype:
        halved = name == "output.bias" and self.config.output_bias == "float16"
        return torch.float16 if halved else torch.float32

    def leaves(self) -> dict[str, LinearOp]:
        """Return every matrix that is not made of others by name, a tied one once."""
        return {
            name: leaf
            for whole, op in self.weights().items()
            for name, leaf in op.leaves(whole).items()
        }

    def ties(self) -> dict[str, str]:
        """Return which weight is another one under a second name."""
        outputs = self.output.weights().items()
        return {name: "embedding" for name, op in outputs if op is self.embedding}

    def replace_weight(self, name: str, op: LinearOp) -> None:
        """Put `op` in the place of the matrix `name`; whatever is tied to it follows.

        Raises
        ------
        KeyError
            If there is no such weight.
        ValueError
            If the shapes differ.
        """
        old = self.weights()[name]
        if old.shape != op.shape:
            raise ValueError(f"{name} is {old.shape}, the new form {op.shape}")
        tied = self.ties()
        holder, attribute = self._place(name)
        setattr(holder, attribute, op)
        for alias, target in tied.items():
            if target == name:
                holder, attribute = self._place(alias)
                setattr(holder, attribute, op)

    def replace_bias(self, name: str, bias: Tensor) -> None:
        """Put float `bias` in the place of the bias vector `name`, as the file can hold it."""
        holder, attribute = self._place(name)
        setattr(holder, attribute, nn.Parameter(bias.to(self._bias_type(name)).float()))

    def _place(self, name: str) -> tuple[nn.Module, str]:
        """Return the module and the attribute that hold the weight or bias `name`."""
        path, _, attribute = ATTRIBUTES.get(name, name).rpartition(".")
        return self.get_submodule(path), attribute

    def parameter_count(self) -> int:
        """Return how many numbers the model stores: weights, a tied one once, and biases."""
        weights = sum(op.parameter_count() for op in self.weights().values())
        return weights + sum(bias.numel() for bias in self.biases().values())

    def settle(self) -> None:
        """Round trained parameters to what the file can hold."""
        for op in self.weights().values():
            op.settle()
        with torch.no_grad():
            self.output.bias.copy_(self.stored_biases()["output.bias"])

    def clone(self) -> LanguageModel:
        """Return an independent copy."""
        return copy.deepcopy(self)
