"""What every cell promises: torch's own layer is the independent truth."""

from __future__ import annotations

import pytest
import torch

from terselm.cells.base import CELLS, CellSizes, RecurrentCell
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from tests.tiny import CELL_VARIANTS, random_quantized

TORCH_LAYERS = {
    "lstm": torch.nn.LSTM,
    "gru": torch.nn.GRU,
    "rnn_tanh": torch.nn.RNN,
    "rnn_relu": lambda *sizes: torch.nn.RNN(*sizes, nonlinearity="relu"),
}


def build(variant: str) -> RecurrentCell:
    kind, _, projection = variant.partition("/")
    torch.manual_seed(3)
    cell = CELLS.get(kind)
    return cell(CellSizes(7, 11, 5 if projection or cell.needs_projection else None))


class WrittenOut(torch.nn.Module):
    """Cells that torch lacks, from their formulas, one number at a time, in float64.

    It takes and returns float32, and its parameters have torch's names.
    """

    def __init__(self, cell: RecurrentCell) -> None:
        super().__init__()
        self.kind = cell.kind
        for name in cell.weight_names():
            weight = getattr(cell, name).dense().detach().clone()
            self.register_parameter(f"{name}_l0", torch.nn.Parameter(weight))
        for name in cell.bias_names():
            bias = getattr(cell, name).detach().clone()
            self.register_parameter(f"{name}_ih_l0", torch.nn.Parameter(bias))

    def forward(self, xs, state):
        own = {name: parameter.double() for name, parameter in self.named_parameters()}
        state = state[0].double()  # [batch, r]
        outputs = []
        for x in xs.double():
            batch = [
                torch.stack(self.one(own, x[n].unbind(), state[n].unbind())) for n in range(len(x))
            ]
            state = torch.stack(batch)
            outputs.append(state)
        return torch.stack(outputs).float(), state.float().unsqueeze(0)

    def one(self, own, x, m):
        """The next m of one text; x and m are lists of numbers."""

        def row(matrix, k, vector):
            return sum(own[f"{matrix}_l0"][k, j] * vector[j] for j in range(len(vector)))

        units, small = len(own["bias_ih_l0"]), len(m)
        bias = own["bias_ih_l0"]
        if self.kind.startswith("projected_rnn"):
            act = torch.tanh if self.kind.endswith("tanh") else torch.relu
            h = [
                act(row("weight_ih", k, x) + row("weight_hh", k, m) + bias[k]) for k in range(units)
            ]
            return [row("weight_hr", j, h) for j in range(small)]
        assert self.kind == "projected_gru"
        gates = [
            torch.sigmoid(
                row("gates_ih", j, x) + row("gates_hh", j, m) + own["gates_bias_ih_l0"][j]
            )
            for j in range(2 * small)
        ]
        reset, update = gates[:small], gates[small:]
        gated = [reset[j] * m[j] for j in range(small)]
        h = [
            torch.tanh(row("weight_ih", k, x) + row("weight_hh", k, gated) + bias[k])
            for k in range(units)
        ]
        return [update[j] * m[j] + (1 - update[j]) * row("weight_hr", j, h) for j in range(small)]


def torch_layer(cell: RecurrentCell) -> torch.nn.Module:
    """torch's layer with the same weights; its second bias takes what ours keeps apart."""
    if cell.needs_projection:
        return WrittenOut(cell)
    if cell.output_size != cell.hidden_size:
        layer = torch.nn.LSTM(7, 11, proj_size=5)
    else:
        layer = TORCH_LAYERS[cell.kind](7, 11)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(cell.weight_ih.dense())
        layer.weight_hh_l0.copy_(cell.weight_hh.dense())
        layer.bias_ih_l0.copy_(cell.bias)
        layer.bias_hh_l0.zero_()
        if cell.kind == "gru":
            layer.bias_hh_l0[-11:].copy_(cell.bias_hn)
        if cell.output_size != cell.hidden_size:
            layer.weight_hr_l0.copy_(cell.weight_hr.dense())
    return layer


def run_torch(layer, xs, state):
    states = [part.unsqueeze(0) for part in state]
    outputs, after = layer(xs, tuple(states) if len(states) > 1 else states[0])
    return outputs, tuple(part[0] for part in (after if len(states) > 1 else (after,)))


def random_state(cell, batch):
    return tuple(torch.randn(batch, size) for size in cell.state_sizes())


def test_every_registered_cell_is_under_contract():
    assert {name.partition("/")[0] for name in CELL_VARIANTS} == set(CELLS)


@pytest.mark.parametrize("way", ["sequence", "stepwise"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_cell_is_torchs_layer(cell, way, batch):
    ours = build(cell)
    xs, state = torch.randn(6, batch, 7), random_state(ours, batch)
    outputs, after = getattr(ours, way)(xs, state)
    expected, expected_after = run_torch(torch_layer(ours), xs, state)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    for part, expected_part in zip(after, expected_after, strict=True):
        torch.testing.assert_close(part, expected_part, rtol=1e-5, atol=1e-6)


def test_gradients_are_torchs(cell):
    ours = build(cell)
    layer = torch_layer(ours)
    xs, state = torch.randn(6, 2, 7), random_state(ours, 2)
    weighting = torch.randn(6, 2, ours.output_size)
    (ours.sequence(xs, state)[0] * weighting).sum().backward()
    (run_torch(layer, xs, state)[0] * weighting).sum().backward()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(ours.weight_ih.weight.grad, layer.weight_ih_l0.grad, **close)
    torch.testing.assert_close(ours.weight_hh.weight.grad, layer.weight_hh_l0.grad, **close)
    torch.testing.assert_close(ours.bias.grad, layer.bias_ih_l0.grad, **close)


def test_the_state_carries_over(cell):
    ours = build(cell)
    xs, state = torch.randn(8, 2, 7), random_state(ours, 2)
    whole, after_whole = ours.sequence(xs, state)
    first, between = ours.sequence(xs[:3], state)
    second, after = ours.sequence(xs[3:], between)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    for part, expected in zip(after, after_whole, strict=True):
        torch.testing.assert_close(part, expected)


@pytest.mark.parametrize("form", ["low_rank", "quantized"])
def test_a_cell_never_asks_how_its_weights_are_stored(cell, form):
    ours = build(cell)
    for name in ours.weight_names():
        rows, columns = getattr(ours, name).shape
        op = (
            LowRank(Dense.initialize(rows, 2), Dense.initialize(2, columns))
            if form == "low_rank"
            else random_quantized(rows, columns, 4, 8)
        )
        setattr(ours, name, op)
    xs, state = torch.randn(6, 2, 7), random_state(ours, 2)
    torch.testing.assert_close(
        ours.sequence(xs, state)[0], ours.stepwise(xs, state)[0], rtol=1e-4, atol=1e-5
    )
    ours.sequence(xs, state)[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())


def test_a_unit_group_is_all_that_a_unit_touches(cell):
    """A unit whose rows and columns are zero can change without anyone noticing."""
    ours = build(cell)
    groups = ours.unit_groups()
    unit = 4
    state = random_state(ours, 2)
    xs = torch.randn(6, 2, 7)

    def run() -> torch.Tensor:
        outputs = ours.stepwise(xs, state)[0]
        if not groups.output_is_unit:
            return outputs
        return outputs[..., [k for k in range(groups.units) if k != unit]]

    with torch.no_grad():
        for name in groups.columns:
            getattr(ours, name).weight[:, unit] = 0
        before = run()
        for name, gates in groups.rows.items():
            holder = getattr(ours, name)
            rows = holder if isinstance(holder, torch.nn.Parameter) else holder.weight
            for gate in range(gates):
                rows[unit + gate * groups.units] += 1.0
        assert torch.equal(run(), before)
        # And the rows named are all of them: every weight's rows are covered.
        for name, gates in groups.rows.items():
            holder = getattr(ours, name)
            assert holder.shape[0] == gates * groups.units


def test_weight_drop_acts_in_training_only(cell):
    ours = build(cell)
    xs, state = torch.randn(6, 2, 7), random_state(ours, 2)
    plain = ours.sequence(xs, state)[0]
    assert not torch.equal(ours.train().sequence(xs, state, 0.5)[0], plain)
    assert torch.equal(ours.eval().sequence(xs, state, 0.5)[0], plain)
