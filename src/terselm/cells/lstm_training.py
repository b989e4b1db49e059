"""The LSTM over a sequence with its gradient written out, for training on CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from terselm.cells.products import product_type, repeated_product

SMALL = 400
"""Hidden units below which torch's kernel is the faster one, in float32."""


def is_better(xs: Tensor, hidden: int, projected: bool) -> bool:
    """Return whether `train_sequence` should be preferred to torch's kernel.

    Parameters
    ----------
    xs : Tensor
        The input.
    hidden : int
        Hidden units.
    projected : bool
        Whether the layer has a projection.
    """
    if not torch.is_grad_enabled() or xs.device.type != "cpu":
        return False
    return projected or hidden >= SMALL or product_type(xs) == torch.bfloat16


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
            recurrent = repeated_product(weight_hh.to(products), batch)
            project = None
            if weight_hr is not None:
                project = repeated_product(weight_hr.to(products), batch)
            gates = inputs @ weight_ih.to(products).t()
            gates = (gates.to(wide) + bias.to(wide)).view(time, batch, 4 * hidden)
            cells = torch.empty(time + 1, batch, hidden, dtype=wide)
            cells[0] = cell
            outputs = torch.empty(time + 1, *output.shape, dtype=products)  # [T + 1, B, P]
            outputs[0] = output
            raw = None if project is None else torch.empty(time, batch, hidden, dtype=products)
            _steps(gates, cells, outputs, recurrent, raw, project)
        ctx.save_for_backward(inputs, outputs, cells, gates, raw, weight_ih, weight_hh, weight_hr)
        ctx.kinds = [each.dtype for each in (xs, output, cell)]
        return outputs[1:].to(xs.dtype), cells[-1].to(cell.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, outputs, cells, gates, raw, weight_ih, weight_hh, weight_hr = ctx.saved_tensors
        products, wide = outputs.dtype, cells.dtype
        time, batch, hidden = gates.shape[0], gates.shape[1], cells.shape[2]
        recurrent = repeated_product(weight_hh.to(products).t(), batch)
        project = None
        if weight_hr is not None:
            project = repeated_product(weight_hr.to(products).t(), batch)

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
        by_cell, by_output = slopes[:, :, :3].unbind(0), slopes[:, :, 3].unbind(0)
        every_cell = of_cell.unsqueeze(1)
        views = zip(
            of_outputs, through, f, by_cell, by_output, slopes.flatten(2), of_sums, strict=True
        )
        for step, now in reversed(list(enumerate(views))):
            given, passed, forget, inner, outer, slope, sums = now
            of_output = given + back
            if project is not None and of_raw is not None:
                of_raw[step] = of_output
                of_output = project(of_raw[step]).to(wide)
            of_cell.addcmul_(of_output, passed)
            inner.mul_(every_cell)
            outer.mul_(of_output)
            of_cell.mul_(forget)
            back = recurrent(sums.copy_(slope)).to(wide)

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


def _steps(
    gates: Tensor,
    cells: Tensor,
    outputs: Tensor,
    recurrent: Callable[[Tensor], Tensor],
    raw: Tensor | None,
    project: Callable[[Tensor], Tensor] | None,
) -> None:
    """Run the steps: fill in what follows the first of cells and outputs.

    Views are made for all steps at once: one at a time they take as long as the arithmetic.

    Parameters
    ----------
    gates : Tensor
        [T, B, 4 H], the input's part of the sums; the gates themselves afterwards.
    cells, outputs : Tensor
        [T + 1, B, H] and [T + 1, B, P].
    recurrent : callable
        Of outputs [B, P] their part of the sums [B, 4 H].
    raw : Tensor or None
        With a projection: [T, B, H], the outputs before it.
    project : callable or None
        Of outputs before the projection [B, H] those after it.
    """
    hidden = cells.shape[2]
    views = zip(
        gates,
        gates[:, :, : 2 * hidden].unbind(0),
        gates[:, :, 2 * hidden : 3 * hidden].unbind(0),
        gates[:, :, 3 * hidden :].unbind(0),
        gates[:, :, :hidden].unbind(0),
        gates[:, :, hidden : 2 * hidden].unbind(0),
        cells[1:],
        outputs[1:],
        strict=True,
    )
    cell, output = cells[0], outputs[0]
    for step, (sums, i_and_f, g, o, i, f, next_cell, next_output) in enumerate(views):
        sums.add_(recurrent(output))
        i_and_f.sigmoid_()
        g.tanh_()
        o.sigmoid_()
        torch.mul(f, cell, out=next_cell).addcmul_(i, g)
        value = next_cell.tanh().mul_(o)
        cell, output = next_cell, next_output
        if project is None or raw is None:
            output.copy_(value)
        else:
            raw[step] = value
            output.copy_(project(raw[step]))
