"""How much working memory the C library asks for."""

from __future__ import annotations

from pathlib import Path

from terselm.linear.dense import Dense
from terselm.linear.tensor_train import TensorTrain
from terselm.models.checkpoint import save
from terselm.runtime import Model
from terselm.runtime.memory import memory_needs
from tests.tiny import make_model

RANK = 5000


def test_a_train_takes_the_memory_of_the_vectors_that_go_through_it(tmp_path: Path) -> None:
    model = make_model("rnn_tanh", layers=1)
    shape = model.weights()["cells.0.weight_hh"].shape
    cores = [Dense.initialize(1, RANK), Dense.initialize(shape[0] * RANK, shape[1])]
    train = TensorTrain(cores, [1, shape[0]], [1, shape[1]], shape)
    model.replace_weight("cells.0.weight_hh", train)
    path = tmp_path / "model.safetensors"
    save(model, path)
    widest = shape[0] * RANK * 4
    assert widest < memory_needs(path.read_bytes()).context < 6 * widest
    opened = Model(path)
    opened.step(opened.state(), 1)
