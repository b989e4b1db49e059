"""Products in bfloat16: near the float32 ones, for every cell, output and stored form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from terselm.cells.base import CELLS
from terselm.errors import UsageError
from terselm.models.language_model import LanguageModel
from terselm.train.config import make_training_config
from terselm.train.distillation import Distillation
from terselm.train.loop import fit
from terselm.train.objective import Objective, make_noise
from terselm.train.precision import mixed, resolved
from tests.tiny import FORM_BUILDERS, WORDS, make_model
from tests.train.tiny_run import same_weights, text, train, weights

CPU = torch.device("cpu")


def gradients(model: LanguageModel, precision: str, **settings: object) -> tuple[Tensor, Tensor]:
    """Return the loss and all gradients in one vector, of a window of random words."""
    torch.manual_seed(0)
    tokens = torch.randint(len(WORDS), (7, 4))
    config = make_training_config({"precision": precision, **settings})
    taught = settings.get("distillation_weight")
    teacher = Distillation(make_model("lstm"), model, config) if taught else None
    noise = make_noise(config, tokens.flatten().numpy(), len(WORDS))
    objective = Objective(model, config, teacher, noise)
    model.train()
    model.zero_grad()
    loss, nll, state = objective(tokens, tokens.roll(1, 0), model.initial_state(4))
    loss.backward()
    assert loss.dtype == nll.dtype == torch.float32
    assert all(part.dtype == torch.float32 for layer in state for part in layer)
    found = [each.grad for each in model.parameters() if each.grad is not None]
    assert all(each.dtype == torch.float32 for each in found)
    return loss.detach(), torch.cat([each.flatten() for each in found])


def assert_near(model: LanguageModel, **settings: object) -> None:
    exact, wanted = gradients(model, "float32", **settings)
    loss, found = gradients(model, "bfloat16", **settings)
    assert torch.isclose(loss, exact, rtol=0.02)
    assert torch.nn.functional.cosine_similarity(found.double(), wanted.double(), dim=0) > 0.95
    assert not torch.equal(found, wanted)


@pytest.mark.parametrize("cell", list(CELLS))
def test_every_cell(cell: str):
    assert_near(make_model(cell))


@pytest.mark.parametrize("form", list(FORM_BUILDERS))
def test_every_form(form: str):
    op = FORM_BUILDERS[form](48, 20)
    x = torch.randn(5, 20)
    found = {}
    for precision in ("float32", "bfloat16"):
        op.zero_grad()
        with mixed(precision, CPU):
            y = op(x)
        assert (y.dtype == torch.bfloat16) == (precision == "bfloat16")
        y.float().square().sum().backward()
        gradients = [each.grad.flatten() for each in op.parameters() if each.grad is not None]
        assert all(each.dtype == torch.float32 for each in gradients)
        found[precision] = torch.cat([y.detach().float().flatten(), *gradients])
    wanted = found["float32"]
    assert (found["bfloat16"] - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize(
    "settings",
    [
        {"distillation_weight": 0.5},
        {"loss": "sampled", "samples": len(WORDS) - 1},
        {"loss": "nce", "samples": len(WORDS) - 1},
        {"activation_regularization": 2.0, "temporal_activation_regularization": 1.0},
    ],
)
def test_every_loss(settings: dict[str, object]):
    assert_near(make_model("lstm"), **settings)


@pytest.mark.parametrize("has", [(), ("avx512_bf16",), ("amx_tile",), ("avx512_bf16", "amx_tile")])
def test_automatic_is_what_the_processor_multiplies_faster(has: tuple[str, ...], monkeypatch):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(
            torch.cpu, f"_is_{name}_supported", lambda name=name: name in has, raising=False
        )
    assert resolved("auto", CPU) == ("bfloat16" if "amx_tile" in has else "float32")
    assert resolved("float32", CPU) == "float32"
    assert resolved("bfloat16", CPU) == "bfloat16"


def test_automatic_with_a_torch_that_does_not_tell(monkeypatch):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{name}_supported", raising=False)
    assert resolved("auto", CPU) == "float32"


def test_the_result_says_what_automatic_came_to():
    model = make_model("lstm")
    config = make_training_config({"epochs": 1, "batch": 2, "window": 5})
    result = fit(model, text(60), config, device="cpu")
    assert config.precision == "auto"
    assert result.config.precision == resolved("auto", CPU)


def test_weights_stay_float32_and_runs_repeat():
    one, other = (train(None, {"precision": "bfloat16"}).model for _ in range(2))
    assert all(value.dtype == torch.float32 for value in weights(one).values())
    assert same_weights(one, other)


def test_unknown_precision():
    with pytest.raises(UsageError, match="precision"):
        make_training_config({"precision": "float16"})
