"""How much the loss feels each matrix, against gradients of offsets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.compress.sensitivity import STEPS, STREAMS, output_sensitivities
from tests.tiny import WORDS, make_model

IDS = np.random.default_rng(0).integers(len(WORDS), size=32 * 40).astype(np.uint16)


def test_sensitivities_are_mean_squared_gradients():
    """Against the gradient of an offset that is added to the gates."""
    model = make_model("lstm", layers=1)
    found = output_sensitivities(model, IDS)
    steps = min(STEPS, len(IDS) // STREAMS - 1)
    tokens = torch.from_numpy(IDS[: (steps + 1) * STREAMS].astype(np.int64))
    tokens = tokens.view(STREAMS, steps + 1).T
    cell = model.layers()[0]
    offset = torch.zeros(steps, STREAMS, cell.bias.numel(), requires_grad=True)
    gates = cell.project(model.embedding.rows(tokens[:-1])) + offset
    state, outputs = model.initial_state(STREAMS)[0], []
    for gx in gates:
        state = cell.step(gx, state)
        outputs.append(state[0])
    logits = model.output.logits(torch.stack(outputs))
    loss = -torch.log_softmax(logits, -1).gather(-1, tokens[1:].unsqueeze(-1)).sum()
    (gradient,) = torch.autograd.grad(loss, offset)
    # An offset of the gates is felt as one of either product.
    expected = float(gradient.square().mean())
    assert found["cells.0.weight_ih"] == pytest.approx(expected, rel=1e-3)
    # The very first recurrent product is with zeros and constant; all others are there.
    later = float(gradient[1:].square().sum()) / gradient.numel()
    assert found["cells.0.weight_hh"] == pytest.approx(later, rel=1e-3)
    assert set(found) == {"embedding", "cells.0.weight_ih", "cells.0.weight_hh"}
