"""The GRU over a sequence with its gradient written out, for training on CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from terselm.cells.products import product_type, repeated_product


def train_sequence(
    xs: Tensor,
    output: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    bias_hn: Tensor,
) -> Tensor:
    """Run one GRU layer over a sequence, as `torch.gru` does.

    For the same reasons as `cells.lstm_training`: what does not recur is one product over all
    steps, and in bfloat16 the output that carries over stays float32.

    Parameters
    ----------
    xs : Tensor
        [time, batch, input].
    output : Tensor
        [batch, hidden], before the first step.
    weight_ih, weight_hh : Tensor
        [3 hidden, input] and [3 hidden, hidden]; gates stacked as reset, update, new.
    bias : Tensor
        [3 hidden].
    bias_hn : Tensor
        [hidden], inside the reset gate's product.

    Returns
    -------
    Tensor
        [time, batch, hidden].
    """
    outputs: Tensor = _TrainSequence.apply(
        product_type(xs), xs, output, weight_ih, weight_hh, bias, bias_hn
    )
    return outputs


class _TrainSequence(torch.autograd.Function):
    """See `train_sequence`; sizes below: T steps, B streams, H hidden."""

    @staticmethod
    def forward(
        ctx: Any,
        products: torch.dtype,
        xs: Tensor,
        output: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor,
        bias_hn: Tensor,
    ) -> Tensor:
        time, batch, hidden = len(xs), *output.shape
        wide = torch.promote_types(products, torch.float32)
        with torch.autocast(xs.device.type, enabled=False):
            inputs = xs.to(products).flatten(0, 1)  # [T B, I]
            recurrent = repeated_product(weight_hh.to(products), batch)
            gates = inputs @ weight_ih.to(products).t()
            gates = (gates.to(wide) + bias.to(wide)).view(time, batch, 3 * hidden)
            outputs = torch.empty(time + 1, batch, hidden, dtype=wide)
            outputs[0] = output
            inner = torch.empty(time, batch, hidden, dtype=wide)  # what the reset gate multiplies
            for step in range(time):
                before, now = outputs[step], gates[step]
                more = recurrent(before.to(products)).to(wide)
                now[:, : 2 * hidden].add_(more[:, : 2 * hidden]).sigmoid_()
                torch.add(more[:, 2 * hidden :], bias_hn, out=inner[step])
                r, z, n = now.chunk(3, dim=1)
                n.addcmul_(r, inner[step]).tanh_()
                torch.lerp(n, before, z, out=outputs[step + 1])
        ctx.save_for_backward(inputs, outputs, gates, inner, weight_ih, weight_hh, bias_hn)
        ctx.kinds = xs.dtype, output.dtype
        return outputs[1:].to(xs.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        inputs, outputs, gates, inner, weight_ih, weight_hh, bias_hn = ctx.saved_tensors
        products, wide = inputs.dtype, outputs.dtype
        time, batch, hidden = inner.shape
        recurrent = repeated_product(weight_hh.to(products).t(), batch)

        # How a change of the output moves the sums of the update and the new gate, and a change
        # of the new gate's that of the reset gate.
        r, z, n = gates.view(time, batch, 3, hidden).unbind(2)
        slopes = gates.new_empty(time, batch, 3, hidden)
        torch.mul(r - r * r, inner, out=slopes[:, :, 0])
        torch.mul(z - z * z, outputs[:-1] - n, out=slopes[:, :, 1])
        torch.mul(1 - n * n, 1 - z, out=slopes[:, :, 2])

        # By the input's sums and by the recurrent ones: the reset gate stands between the two.
        of_inputs = torch.empty(time, batch, 3 * hidden, dtype=products)
        of_recurrent = torch.empty_like(of_inputs)
        of_inner = torch.zeros(batch, hidden, dtype=wide)
        of_outputs = of_outputs.to(wide)
        back = torch.zeros_like(outputs[0])
        for step in reversed(range(time)):
            of_output = of_outputs[step] + back
            now = slopes[step]
            now[:, 1:].mul_(of_output.unsqueeze(1))
            now[:, 0].mul_(now[:, 2])
            through = now[:, 2] * r[step]
            of_inner += through
            of_inputs[step] = now.flatten(1)
            of_recurrent[step, :, : 2 * hidden] = of_inputs[step, :, : 2 * hidden]
            of_recurrent[step, :, 2 * hidden :] = through
            back = torch.addcmul(recurrent(of_recurrent[step]).to(wide), of_output, z[step])

        by_inputs, by_recurrent = of_inputs.flatten(0, 1), of_recurrent.flatten(0, 1)  # [T B, 3 H]
        of_xs = None
        if ctx.needs_input_grad[1]:
            of_xs = (by_inputs @ weight_ih.to(products)).view(time, batch, -1).to(ctx.kinds[0])
        befores = outputs[:-1].to(products).flatten(0, 1)
        return (
            None,
            of_xs,
            back.to(ctx.kinds[1]),
            (by_inputs.t() @ inputs).to(weight_ih.dtype),
            (by_recurrent.t() @ befores).to(weight_hh.dtype),
            slopes.sum((0, 1)).flatten().to(bias_hn.dtype),
            of_inner.sum(0).to(bias_hn.dtype),
        )
