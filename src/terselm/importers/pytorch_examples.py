"""State dicts of pytorch/examples, word_language_model."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from terselm.errors import TerselmError
from terselm.importers.base import IMPORTERS, Imported, Importer, ImportOptions
from terselm.linear.dense import Dense
from terselm.models.config import ModelConfig, make_config
from terselm.models.language_model import LanguageModel

ENCODER = "encoder.weight"
DECODER = "decoder.weight"
DECODER_BIAS = "decoder.bias"
FIRST_RECURRENT = "rnn.weight_hh_l0"
CELLS_BY_GATES = {4: "lstm", 3: "gru", 1: "rnn"}


@IMPORTERS.register("pytorch_examples")
class PytorchExamples(Importer):
    """`encoder` (embedding), `rnn` (torch's own LSTM, GRU or RNN) and `decoder` (output layer).

    torch has two biases a layer that are added before anything else; they are merged, except the
    recurrent one of a GRU's new gate. Embedding and output are tied where their numbers are the
    same.
    """

    @classmethod
    def recognizes(cls, names: Collection[str]) -> bool:
        """Return whether an encoder, a decoder or a first recurrent layer is there."""
        return not {ENCODER, DECODER, FIRST_RECURRENT}.isdisjoint(names)

    @classmethod
    def build(cls, tensors: Mapping[str, Tensor], options: ImportOptions) -> Imported:
        """Return the model; see `Importer.build`."""
        sizes = _find_sizes(tensors)
        _check_names_and_shapes(tensors, sizes)
        if len(options.vocabulary) != sizes.vocabulary:
            raise TerselmError(
                f"the vocabulary has {len(options.vocabulary):,} words, but {ENCODER} has "
                f"{sizes.vocabulary:,} rows; give the vocabulary it was trained with"
            )
        values = {name: _float32(name, tensor) for name, tensor in tensors.items()}
        cell = sizes.cell if sizes.cell != "rnn" else f"rnn_{options.nonlinearity}"
        tied = sizes.embedding == sizes.output and torch.equal(values[ENCODER], values[DECODER])
        config = make_config(
            {
                "cell": cell,
                "hidden": (sizes.hidden,) * sizes.layers,
                "embedding": sizes.embedding,
                "projection": sizes.projection,
                "tied": tied,
            }
        )
        model = _assemble(config, tensors, values, options)
        return Imported(model, _notes(tensors, sizes, tied, options))


@dataclass(frozen=True)
class _Sizes:
    """What the shapes say; `cell` is "lstm", "gru" or "rnn"."""

    cell: str
    gates: int
    vocabulary: int
    embedding: int
    hidden: int
    projection: int | None
    layers: int

    @property
    def output(self) -> int:
        return self.projection or self.hidden

    def expected(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of the layout."""
        rows = self.gates * self.hidden
        shapes: dict[str, tuple[int, ...]] = {ENCODER: (self.vocabulary, self.embedding)}
        incoming = self.embedding
        for layer in range(self.layers):
            shapes[f"rnn.weight_ih_l{layer}"] = (rows, incoming)
            shapes[f"rnn.weight_hh_l{layer}"] = (rows, self.output)
            shapes[f"rnn.bias_ih_l{layer}"] = (rows,)
            shapes[f"rnn.bias_hh_l{layer}"] = (rows,)
            if self.projection:
                shapes[f"rnn.weight_hr_l{layer}"] = (self.projection, self.hidden)
            incoming = self.output
        shapes[DECODER] = (self.vocabulary, self.output)
        shapes[DECODER_BIAS] = (self.vocabulary,)
        return shapes


def _find_sizes(tensors: Mapping[str, Tensor]) -> _Sizes:
    backward = next((name for name in sorted(tensors) if name.endswith("_reverse")), None)
    if backward is not None:
        raise TerselmError(
            f"{backward}: the model is bidirectional, it reads the words that are to be predicted; "
            "train one that reads forward only"
        )
    vocabulary, embedding = _matrix_shape(tensors, ENCODER, "[vocabulary, embedding]")
    rows, output = _matrix_shape(tensors, FIRST_RECURRENT, "[gates * hidden, output]")
    hidden, projection = output, None
    if "rnn.weight_hr_l0" in tensors:
        projection, hidden = _matrix_shape(tensors, "rnn.weight_hr_l0", "[projection, hidden]")
    gates, rest = divmod(rows, hidden)
    if rest or gates not in CELLS_BY_GATES or (projection and gates != 4):
        raise TerselmError(
            f"{FIRST_RECURRENT} is {[rows, output]}, with {hidden} hidden units expected "
            f"{4 * hidden} rows (LSTM), {3 * hidden} (GRU) or {hidden} (RNN); "
            "only an LSTM has a projection"
        )
    layers = 1 + max(
        int(found.group(1))
        for name in tensors
        if (found := re.fullmatch(r"rnn\.(?:weight|bias)_(?:ih|hh|hr)_l(\d{1,3})", name))
    )
    return _Sizes(CELLS_BY_GATES[gates], gates, vocabulary, embedding, hidden, projection, layers)


def _matrix_shape(tensors: Mapping[str, Tensor], name: str, meaning: str) -> tuple[int, int]:
    if name not in tensors:
        raise TerselmError(f"{name} is missing, expected a matrix {meaning}")
    shape = tuple(tensors[name].shape)
    if len(shape) != 2 or 0 in shape:
        raise TerselmError(f"{name} is {list(shape)}, expected a matrix {meaning}")
    return shape


def _check_names_and_shapes(tensors: Mapping[str, Tensor], sizes: _Sizes) -> None:
    expected = sizes.expected()
    for name, shape in expected.items():
        if name not in tensors:
            way_out = "; give zeros if it was trained without" if "bias" in name else ""
            raise TerselmError(f"{name} is missing, expected {list(shape)}{way_out}")
        if tuple(tensors[name].shape) != shape:
            raise TerselmError(
                f"{name} is {list(tensors[name].shape)}, expected {list(shape)} "
                f"as {ENCODER} and {FIRST_RECURRENT} are"
            )
    unexpected = sorted(set(tensors) - set(expected))
    if unexpected:
        raise TerselmError(
            f"{unexpected[0]} is not expected in a {sizes.cell} of {sizes.layers} layer(s); "
            "the model computes something that this layout does not have"
        )


def _float32(name: str, tensor: Tensor) -> Tensor:
    converted = tensor.detach().to(torch.float32)
    if not torch.isfinite(converted).all():
        raise TerselmError(f"{name} holds NaN or infinite values (as float32); it is not usable")
    return converted


def _assemble(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    options: ImportOptions,
) -> LanguageModel:
    # On the meta device no random numbers are drawn, and nothing is allocated twice.
    with torch.device("meta"):
        model = LanguageModel(config, options.vocabulary)
    for name in model.weights():
        source = _source_of(name)
        try:
            model.replace_weight(name, Dense(values[source], options.stored_type))
        except TerselmError as error:
            raise TerselmError(f"{source}: {error}") from None
    for layer in range(config.layers):
        for name, bias in _merged_biases(tensors, layer, config.cell).items():
            model.replace_bias(f"cells.{layer}.{name}", bias)
    model.replace_bias("output.bias", values[DECODER_BIAS].clone())
    return model.eval()


def _source_of(weight: str) -> str:
    if weight in ("embedding", "output"):
        return ENCODER if weight == "embedding" else DECODER
    _, layer, name = weight.split(".")
    return f"rnn.{name}_l{layer}"


def _merged_biases(tensors: Mapping[str, Tensor], layer: int, cell: str) -> dict[str, Tensor]:
    """Return the biases of a cell, float32; torch's two are added in float64."""
    incoming = tensors[f"rnn.bias_ih_l{layer}"].double()
    recurrent = tensors[f"rnn.bias_hh_l{layer}"].double()
    if cell != "gru":
        return {"bias": (incoming + recurrent).float()}
    hidden = len(recurrent) // 3
    merged = incoming.clone()
    merged[: 2 * hidden] += recurrent[: 2 * hidden]
    # The new gate's recurrent bias sits inside the reset gate's product.
    return {"bias": merged.float(), "bias_hn": recurrent[2 * hidden :].float()}


def _notes(
    tensors: Mapping[str, Tensor], sizes: _Sizes, tied: bool, options: ImportOptions
) -> tuple[str, ...]:
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    notes = [f"source in {', '.join(types)}, stored as {options.stored_type}"]
    if tied:
        notes.append(f"{DECODER} equals {ENCODER}: output and embedding are tied")
    if sizes.cell == "rnn":
        notes.append(
            f"the weights of a plain RNN do not tell its nonlinearity: {options.nonlinearity}"
        )
    return tuple(notes)
