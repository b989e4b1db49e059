"""The LSTM over a sequence with its gradient written out, for training on CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from terselm.cells.products import product_type


def train_sequence(
    xs: Tensor,
    state: tuple[Tensor, Tensor],
    weights: tuple[Tensor, Tensor, Tensor],
    weight_hr: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run one LSTM layer over a sequence, as `torch.lstm` does.

    torch's own kernel multiplies the gradients of the gates with the inputs step by step, and
    in bfloat16 it rounds the cell at every step; with a projection it has no kernel at all.
    Here everything that does not recur is one product over all steps, gates and cell stay
    float32, and only products are in what autocast asks for.

    Parameters
    ----------
    xs : Tensor
        [time, batch, input].
    state : (Tensor, Tensor)
        Output [batch, output] and cell [batch, hidden] before the first step.
    weights : (Tensor, Tensor, Tensor)
        weight_ih [4 hidden, input], weight_hh [4 hidden, output], bias [4 hidden]; gates
        stacked as input, forget, cell, output.
    weight_hr : Tensor or None
        [output, hidden], the projection.

    Returns
    -------
    outputs : Tensor
        [time, batch, output].
    state : (Tensor, Tensor)
        After the last step.
    """
    outputs, cell = _TrainSequence.apply(product_type(xs), xs, *state, *weights, weight_hr)
    return outputs, (outputs[-1], cell)


class _TrainSequence(torch.autograd.Function):
    """See `train_sequence`; sizes below: T steps, B streams, H hidden, P output."""

    @staticmethod
    def forward(
        ctx: Any,
        products: torch.dtype,
        xs: Tensor,
        output: Tensor,
        cell: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor,
        weight_hr: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        time, batch, hidden = len(xs), cell.shape[0], cell.shape[1]
        wide = torch.promote_types(products, torch.float32)
        with torch.autocast(xs.device.type, enabled=False):
            inputs = xs.to(products).flatten(0, 1)  # [T B, I]
            recurrent = weight_hh.to(products)
            project = None if weight_hr is None else weight_hr.to(products)
            gates = inputs @ weight_ih.to(products).t()
            gates = (gates.to(wide) + bias.to(wide)).view(time, batch, 4 * hidden)
            cells = torch.empty(time + 1, batch, hidden, dtype=wide)
            cells[0] = cell
            outputs = torch.empty(time + 1, *output.shape, dtype=products)  # [T + 1, B, P]
            outputs[0] = output
            raw = None if project is None else torch.empty(time, batch, hidden, dtype=products)
            for step in range(time):
                now = gates[step].add_(outputs[step] @ recurrent.t())
                now[:, : 2 * hidden].sigmoid_()
                now[:, 2 * hidden : 3 * hidden].tanh_()
                now[:, 3 * hidden :].sigmoid_()
                i, f, g, o = now.chunk(4, dim=1)
                torch.mul(f, cells[step], out=cells[step + 1]).addcmul_(i, g)
                value = cells[step + 1].tanh().mul_(o)
                if project is None or raw is None:
                    outputs[step + 1] = value
                else:
                    raw[step] = value
                    torch.mm(raw[step], project.t(), out=outputs[step + 1])
        ctx.save_for_backward(inputs, outputs, cells, gates, raw, weight_ih, weight_hh, weight_hr)
        ctx.kinds = [each.dtype for each in (xs, output, cell)]
        return outputs[1:].to(xs.dtype), cells[-1].to(cell.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, outputs, cells, gates, raw, weight_ih, weight_hh, weight_hr = ctx.saved_tensors
        products, wide = outputs.dtype, cells.dtype
        time, batch, hidden = gates.shape[0], gates.shape[1], cells.shape[2]
        recurrent = weight_hh.to(products)
        project = None if weight_hr is None else weight_hr.to(products)

        # How a change of the cell (of the output, for its gate) moves each gate's sum.
        i, f, g, o = gates.view(time, batch, 4, hidden).unbind(2)
        squashed = cells[1:].tanh()
        slopes = gates.new_empty(time, batch, 4, hidden)
        torch.mul(i - i * i, g, out=slopes[:, :, 0])
        torch.mul(f - f * f, cells[:-1], out=slopes[:, :, 1])
        torch.mul(1 - g * g, i, out=slopes[:, :, 2])
        torch.mul(o - o * o, squashed, out=slopes[:, :, 3])
        through = (1 - squashed * squashed) * o  # of the cell, by the output

        of_sums = torch.empty(time, batch, 4 * hidden, dtype=products)
        of_raw = None if raw is None else torch.empty(time, *outputs.shape[1:], dtype=products)
        of_outputs, of_cell = gradients[0].to(wide), gradients[1].to(wide, copy=True)
        back = torch.zeros_like(outputs[0], dtype=wide)
        for step in reversed(range(time)):
            of_output = of_outputs[step] + back
            if project is not None and of_raw is not None:
                of_raw[step] = of_output
                of_output = (of_raw[step] @ project).to(wide)
            of_cell.addcmul_(of_output, through[step])
            now = slopes[step]
            now[:, :3].mul_(of_cell.unsqueeze(1))
            now[:, 3].mul_(of_output)
            of_cell.mul_(f[step])
            of_sums[step] = now.flatten(1)
            back = (of_sums[step] @ recurrent).to(wide)

        every = of_sums.flatten(0, 1)  # [T B, 4 H]
        needs = ctx.needs_input_grad
        of_xs = None
        if needs[1]:
            of_xs = (every @ weight_ih.to(products)).view(time, batch, -1).to(ctx.kinds[0])
        of_hr = None
        if raw is not None and of_raw is not None:
            of_hr = (of_raw.flatten(0, 1).t() @ raw.flatten(0, 1)).to(weight_hr.dtype)
        return (
            None,
            of_xs,
            back.to(ctx.kinds[1]),
            of_cell.to(ctx.kinds[2]),
            (every.t() @ inputs).to(weight_ih.dtype),
            (every.t() @ outputs[:-1].flatten(0, 1)).to(weight_hh.dtype),
            slopes.sum((0, 1)).flatten().to(weight_ih.dtype),
            of_hr,
        )
