"""One step of a model as an ONNX graph, as other engines run it: token and state in, state out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from terselm.models.language_model import LanguageModel

OPSET = 17


class Graph:
    """Nodes and weights of a graph that is being built."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], outputs: list[str], **options: Any) -> list[str]:
        self.nodes.append(helper.make_node(kind, inputs, outputs, **options))
        return outputs


def _rows(matrix: np.ndarray, order: list[int]) -> np.ndarray:
    parts = np.split(matrix, len(order))
    return np.concatenate([parts[number] for number in order])


def _fused(graph: Graph, cell: Any, number: int, x: str) -> str:
    """A torch LSTM or GRU as ONNX's operator."""
    lstm = cell.kind == "lstm"
    order = [0, 3, 1, 2] if lstm else [1, 0, 2]  # ONNX: input, output, forget, cell; update, reset
    name = f"layer{number}"
    weight = _rows(cell.weight_ih.dense().numpy(), order)[None]
    recurrent = _rows(cell.weight_hh.dense().numpy(), order)[None]
    bias = _rows(cell.bias.detach().numpy(), order)
    inner = np.zeros_like(bias)
    if not lstm:
        inner[2 * cell.hidden_size :] = cell.bias_hn.detach().numpy()
    inputs = [
        x,
        graph.weight(f"{name}_w", weight),
        graph.weight(f"{name}_r", recurrent),
        graph.weight(f"{name}_b", np.concatenate([bias, inner])[None]),
        "",
        f"h{number}",
        *([f"c{number}"] if lstm else []),
    ]
    outputs = [f"{name}_y", f"next_h{number}", *([f"next_c{number}"] if lstm else [])]
    options = {"hidden_size": cell.hidden_size}
    if not lstm:
        options["linear_before_reset"] = 1
    graph.node("LSTM" if lstm else "GRU", inputs, outputs, **options)
    axis = graph.weight(f"{name}_axis", np.array([1], np.int64))
    return graph.node("Squeeze", [f"{name}_y", axis], [f"{name}_x"])[0]


def _projected_lstm(graph: Graph, cell: Any, number: int, x: str) -> str:
    """An LSTM with a recurrent projection in single operators; ONNX has no such cell."""
    name = f"layer{number}"

    def product(inputs: str, weight: Any, out: str) -> str:
        matrix = graph.weight(f"{out}_w", weight.dense().numpy().T)
        return graph.node("MatMul", [inputs, matrix], [out])[0]

    gates = graph.node(
        "Add",
        [
            product(x, cell.weight_ih, f"{name}_ih"),
            product(f"h{number}", cell.weight_hh, f"{name}_hh"),
        ],
        [f"{name}_sum"],
    )[0]
    bias = graph.weight(f"{name}_b", cell.bias.detach().numpy())
    graph.node("Add", [gates, bias], [f"{name}_gates"])
    parts = [f"{name}_{gate}" for gate in "ifgo"]
    graph.node("Split", [f"{name}_gates"], parts, axis=-1)
    act = [
        graph.node("Tanh" if gate.endswith("g") else "Sigmoid", [gate], [f"{gate}_a"])[0]
        for gate in parts
    ]
    graph.node("Mul", [act[1], f"c{number}"], [f"{name}_kept"])
    graph.node("Mul", [act[0], act[2]], [f"{name}_new"])
    graph.node("Add", [f"{name}_kept", f"{name}_new"], [f"next_c{number}"])
    graph.node("Tanh", [f"next_c{number}"], [f"{name}_t"])
    graph.node("Mul", [act[3], f"{name}_t"], [f"{name}_h"])
    return product(f"{name}_h", cell.weight_hr, f"next_h{number}")


def write_step(model: LanguageModel, path: Path, batch: int) -> None:
    """Write the graph of one step for `batch` states; its inputs are token, h0, c0, h1, ..."""
    graph = Graph()
    inputs = [helper.make_tensor_value_info("token", TensorProto.INT64, [1, batch])]
    outputs = [helper.make_tensor_value_info("log_softmax", TensorProto.FLOAT, None)]
    table = graph.weight("embedding", model.embedding.dense().numpy())
    x = graph.node("Gather", [table, "token"], ["x"])[0]  # [1, batch, size]
    for number, cell in enumerate(model.layers()):
        for letter, size in zip("hc", cell.state_sizes(), strict=False):
            shape = [1, batch, size]
            inputs.append(
                helper.make_tensor_value_info(f"{letter}{number}", TensorProto.FLOAT, shape)
            )
            outputs.append(
                helper.make_tensor_value_info(f"next_{letter}{number}", TensorProto.FLOAT, None)
            )
        projected = getattr(cell, "weight_hr", None) is not None
        x = (_projected_lstm if projected else _fused)(graph, cell, number, x)
    weight = graph.weight("output_w", model.output.weight.dense().numpy().T)
    bias = graph.weight("output_b", model.output.bias.detach().numpy())
    graph.node("MatMul", [x, weight], ["scores"])
    graph.node("Add", ["scores", bias], ["logits"])
    graph.node("LogSoftmax", ["logits"], ["log_softmax"], axis=-1)
    made = helper.make_graph(graph.nodes, "step", inputs, outputs, graph.weights)
    onnx.save(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9),
        str(path),
    )
