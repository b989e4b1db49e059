"""Every number by itself again."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, ModelMethod, register_method
from terselm.compress.leaves import change_leaves
from terselm.compress.stored_type import stored_type_of
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.models.language_model import LanguageModel


@register_method("unpack")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Unpack(ModelMethod):
    """Store codes and sparse values as plain numbers, the same in value.

    Training changes numbers, not codes. So a compressed model is unpacked where it is to be
    trained further as if it had never been compressed, as a pretrained one. Factors stay
    factors, blocks stay blocks, matrices in float16 stay so; the output layer's bias becomes
    float32.

    Recipe, also by the method's name alone (`--recipe unpack`)::

        - {method: unpack}

    Cost: 4 bytes a number; eight times the file of 4-bit codes.

    When not: to train a model in its codes, use `recover` with `train_codes`; to keep the zeros
    of a sparse one, `recover`.
    """

    enlarges = True

    def apply(self, model: LanguageModel, context: Context) -> LanguageModel:
        """Return the model with every leaf dense."""
        change_leaves(model, _unpacked)
        model.config = model.config.model_copy(update={"output_bias": "float32"})
        model.replace_bias("output.bias", model.output.bias.detach())
        return model


def _unpacked(leaf: LinearOp, _: str) -> LinearOp:
    if leaf.kind == Dense.kind:
        return leaf
    return Dense(leaf.dense().detach(), stored_type_of(leaf))
