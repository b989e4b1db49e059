"""State dicts of pytorch/examples in small, and what torch itself computes with them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

WORDS = ["the", "<unk>", "<eos>", "cat", "sat", "on", "a", "mat", "dog"]

LAYERS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes: nn.RNN(*sizes, nonlinearity="relu"),
}


class TorchModel(nn.Module):
    """The model of the example: encoder, rnn, decoder; the decoder's weight may be tied."""

    def __init__(
        self,
        cell: str,
        layers: int = 2,
        *,
        embedding: int = 6,
        hidden: int = 8,
        projection: int = 0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = nn.Embedding(len(WORDS), embedding)
        extra = {"proj_size": projection} if projection else {}
        self.rnn = LAYERS[cell](embedding, hidden, layers, **extra)
        self.decoder = nn.Linear(projection or hidden, len(WORDS))
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(self.rnn(self.encoder(tokens))[0])


def make_state(cell: str = "lstm", layers: int = 2, **options: object) -> dict[str, Tensor]:
    torch.manual_seed(1)
    state = TorchModel(cell, layers, **options).state_dict()
    return {name: tensor.clone() for name, tensor in state.items()}


def words_file(folder: Path, words: list[str] = WORDS) -> Path:
    path = folder / f"{len(words)}-words.txt"
    path.write_text("\n".join(words) + "\n")
    return path
