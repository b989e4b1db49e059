"""The engines that are compared: each runs the same step of the same model, one thread.

An engine is a callable `step(tokens)` with tokens int64 [batch]; it keeps its state and computes
the log-probabilities of all words. Making one may raise `UnavailableError`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terselm.models.language_model import LanguageModel
from terselm.runtime.model import Model

Step = Callable[[np.ndarray], np.ndarray]


class UnavailableError(Exception):
    """This engine cannot run this model here; the message says why."""


def terselm_step(path: Path, batch: int, kernels: str | None = None) -> Step:
    """The C library on a model file."""
    model = Model(path, batch=batch, kernels=kernels)
    states = [model.state() for _ in range(batch)]
    out = np.empty((batch, len(model)), np.float32)

    def one(tokens: np.ndarray) -> np.ndarray:
        model.step(states[0], int(tokens[0]))
        return model.log_probabilities(states[0], out[0])

    def many(tokens: np.ndarray) -> np.ndarray:
        model.step_many(states, tokens)
        return model.log_probabilities_many(states, out)

    return one if batch == 1 else many


def onnxruntime_step(path: Path) -> Step:
    """Onnxruntime on a graph of `onnx_steps`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    outputs = [item.name for item in session.get_outputs()]
    state = {item.name: np.zeros(item.shape, np.float32) for item in session.get_inputs()[1:]}

    def step(tokens: np.ndarray) -> np.ndarray:
        results = session.run(outputs, {names[0]: tokens[None].astype(np.int64), **state})
        for name, value in zip(outputs[1:], results[1:], strict=True):
            state[name.removeprefix("next_")] = value.reshape(
                state[name.removeprefix("next_")].shape
            )
        return results[0]

    return step


def quantized_onnx(path: Path) -> Path:
    """Write the graph with dynamic 8-bit quantization of onnxruntime; return where."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = path.with_name(f"{path.stem}-int8.onnx")
    quantize_dynamic(str(path), str(small), weight_type=QuantType.QInt8)
    return small


def openvino_step(path: Path) -> Step:
    """OpenVINO on a graph of `onnx_steps`, with the precision that it chooses."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        str(path), "CPU", {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    )
    request = compiled.create_infer_request()
    names = [item.get_any_name() for item in compiled.inputs]
    outputs = [item.get_any_name() for item in compiled.outputs]
    state = {
        item.get_any_name(): np.zeros(tuple(item.shape), np.float32) for item in compiled.inputs[1:]
    }

    def step(tokens: np.ndarray) -> np.ndarray:
        results = request.infer({names[0]: tokens[None].astype(np.int64), **state})
        for number, name in enumerate(outputs[1:], start=1):
            key = name.removeprefix("next_")
            state[key] = np.array(results[number]).reshape(state[key].shape)
        return np.asarray(results[0])

    return step


class _TorchStep(torch.nn.Module):
    """The plain layers of torch."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding.from_pretrained(model.embedding.dense())
        cells = model.layers()
        first = cells[0]
        kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[first.kind]
        projection = first.output_size if getattr(first, "weight_hr", None) is not None else 0
        options = {"proj_size": projection} if projection else {}
        self.rnn = kind(self.embedding.embedding_dim, first.hidden_size, len(cells), **options)
        self.output = torch.nn.Linear(first.output_size, len(model.vocabulary))
        with torch.no_grad():
            for number, cell in enumerate(cells):
                for name in ("weight_ih", "weight_hh", "weight_hr"):
                    op = getattr(cell, name, None)
                    if op is not None:
                        getattr(self.rnn, f"{name}_l{number}").copy_(op.dense())
                getattr(self.rnn, f"bias_ih_l{number}").copy_(cell.bias)
                inner = getattr(self.rnn, f"bias_hh_l{number}").zero_()
                if cell.kind == "gru":
                    inner[2 * cell.hidden_size :] = cell.bias_hn
            self.output.weight.copy_(model.output.weight.dense())
            self.output.bias.copy_(model.output.bias)

    def forward(self, tokens: Any, state: Any) -> Any:
        y, state = self.rnn(self.embedding(tokens), state)
        return torch.log_softmax(self.output(y), -1), state


def torch_step(model: LanguageModel, quantized: bool) -> Step:
    """PyTorch, in float32 or with its (deprecated) dynamic 8-bit quantization."""
    module: Any = _TorchStep(model).eval()
    if quantized:
        if module.rnn.__class__ is torch.nn.LSTM and module.rnn.proj_size:
            raise UnavailableError("torch quantizes no LSTM with a projection")
        try:
            module = torch.ao.quantization.quantize_dynamic(
                module, {torch.nn.LSTM, torch.nn.GRU, torch.nn.Linear}, dtype=torch.qint8
            )
        except (RuntimeError, AttributeError) as error:
            raise UnavailableError(str(error).splitlines()[0]) from None
    state: Any = None

    def step(tokens: np.ndarray) -> np.ndarray:
        nonlocal state
        with torch.inference_mode():
            result, state = module(torch.from_numpy(tokens)[None], state)
        return np.asarray(result)

    return step
