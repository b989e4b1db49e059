"""Codebooks, binary codes and product codes: what they stand for, number by number."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terselm.errors import TerselmError
from terselm.linear.base import op_from_file
from terselm.linear.binary_codes import BinaryCodes, fit_scales, nearest_codes
from terselm.linear.codebook import Codebook, nearest
from terselm.linear.product_codes import ProductCodes
from tests.tiny import random_binary_codes, random_codebook, random_product_codes


def stored(op):
    return {f"w.{name}": tensor for name, tensor in op.tensors().items()}


@pytest.mark.parametrize(("bits", "scope"), [(1, "matrix"), (8, "matrix"), (2, "row"), (4, "row")])
def test_a_codebook_is_its_values(bits, scope):
    torch.manual_seed(0)
    op = random_codebook(7, 9, bits, scope)
    for i, j in itertools.product(range(7), range(9)):
        values = op.values[i if scope == "row" else 0]
        assert op.dense()[i, j] == values[int(op.codes[i, j])]


@pytest.mark.parametrize(("bits", "group"), [(1, None), (3, 16), (4, 24)])
def test_binary_codes_are_sums_of_scaled_signs(bits, group):
    torch.manual_seed(0)
    op = random_binary_codes(5, 50, bits, group)
    for i, j in itertools.product(range(5), range(50)):
        scales = op.scales[i, 0 if group is None else j // group]
        signs = [1 if int(op.codes[i, j]) >> k & 1 else -1 for k in range(bits)]
        expected = sum(s * a for s, a in zip(signs, scales.tolist(), strict=True))
        assert float(op.dense().detach()[i, j]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("norms", [False, True])
def test_product_codes_are_chains_of_centroids(shared, norms):
    torch.manual_seed(0)
    op = random_product_codes(6, 11, 4, 16, shared=shared, norms=norms)
    for i, j in itertools.product(range(6), range(11)):
        centroid = op.centroids[0 if shared else j // 4, int(op.codes[i, j // 4])]
        expected = centroid[j % 4].item() * (op.norms[i].item() if norms else 1.0)
        assert float(op.dense().detach()[i, j]) == pytest.approx(expected, abs=1e-6)


def test_means_of_many_numbers():
    """Added up in float32 one by one, 5 million numbers are 0.06 % off."""
    torch.manual_seed(0)
    weight = torch.randn(1, 5_000_000)
    codes = torch.zeros_like(weight, dtype=torch.uint8)
    found = Codebook(codes, torch.tensor([[-1.0, 1.0]]), "matrix").reround(weight)
    halves = [weight[weight < 0], weight[weight >= 0]]
    expected = torch.stack([half.double().mean() for half in halves])
    assert torch.equal(found.values[0].double(), expected.half().double())


@given(st.integers(1, 30), st.integers(1, 16), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_nearest_is_nearest(columns, count, seed):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(3, columns, generator=generator)
    values = torch.randn(3, count, generator=generator).sort(dim=1).values
    found = values.gather(1, nearest(numbers, values))
    best = (numbers.unsqueeze(2) - values.unsqueeze(1)).abs().amin(2)
    torch.testing.assert_close((numbers - found).abs(), best)


@given(st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_nearest_binary_codes_among_all_sign_patterns(bits, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(4, 12, generator=generator)
    scales = torch.randn(4, bits, generator=generator)  # of both signs, in any order
    op = BinaryCodes(nearest_codes(values, scales), scales.unsqueeze(1))
    op.scales.data.copy_(scales.unsqueeze(1))
    patterns = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=bits)))
    levels = scales.half().float() @ patterns.T
    best = (values.unsqueeze(2) - levels.unsqueeze(1)).abs().amin(2)
    torch.testing.assert_close((values - op.dense()).abs(), best, rtol=0, atol=2e-3)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_scales_are_the_least_squares_solution(bits):
    torch.manual_seed(bits)
    values, codes = torch.randn(5, 40), torch.randint(2**bits, (5, 40))
    weights = torch.rand(5, 40) + 0.1
    counts = torch.zeros(5, 2**bits).scatter_add_(1, codes, weights)
    sums = torch.zeros(5, 2**bits).scatter_add_(1, codes, weights * values)
    signs = ((codes.unsqueeze(2) >> torch.arange(bits)) & 1) * 2.0 - 1.0  # [5, 40, bits]
    root = weights.sqrt().unsqueeze(2)
    expected = torch.linalg.lstsq((root * signs).double(), (root[..., 0] * values).double())
    torch.testing.assert_close(
        fit_scales(counts, sums, bits), expected.solution, rtol=1e-4, atol=1e-5
    )


def test_scales_where_planes_agree_or_nothing_is_there():
    """Both planes are + everywhere, so only the sum is determined; the other row is empty."""
    counts = torch.tensor([[0.0, 0.0, 0.0, 8.0], [0.0, 0.0, 0.0, 0.0]])
    sums = torch.tensor([[0.0, 0.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.25, 0.25], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(fit_scales(counts, sums, 2), expected, rtol=1e-6, atol=1e-6)


CODED = {
    "codebook, matrix": lambda: random_codebook(40, 33, 3, "matrix"),
    "codebook, row": lambda: random_codebook(40, 33, 2, "row"),
    "binary_codes, row": lambda: random_binary_codes(40, 33, 3, None),
    "binary_codes, groups": lambda: random_binary_codes(40, 33, 2, 16),
    "product_codes": lambda: random_product_codes(40, 33, 4, 16),
    "product_codes, shared": lambda: random_product_codes(40, 33, 8, 16, shared=True),
    "product_codes, norms": lambda: random_product_codes(40, 33, 2, 16, norms=True),
}


@pytest.mark.parametrize("name", CODED)
def test_rounding_codes_again_changes_nothing(name):
    torch.manual_seed(0)
    op = CODED[name]()
    again = op.reround(op.dense().detach())
    torch.testing.assert_close(again.dense(), op.dense(), rtol=2e-3, atol=1e-4)
    assert again.spec() == op.spec()


@pytest.mark.parametrize("name", CODED)
def test_rounding_again_brings_a_matrix_nearer(name):
    """Each of the two halves, codes and then values, can only lower the squared error."""
    torch.manual_seed(0)
    op = CODED[name]()
    weight = op.dense().detach() + 0.1 * torch.randn(op.shape)
    errors = []
    for _ in range(4):
        errors.append(float((op.dense().detach() - weight).square().sum()))
        op = op.reround(weight)
    assert errors[1] < errors[0]
    for before, after in itertools.pairwise(errors):
        assert after <= before * (1 + 1e-3)


@pytest.mark.parametrize("name", CODED)
def test_a_zero_matrix_can_be_rounded(name):
    torch.manual_seed(0)
    op = CODED[name]().reround(torch.zeros(40, 33))
    assert all(torch.isfinite(parameter).all() for parameter in op.parameters())
    again = op.reround(torch.zeros(40, 33))
    assert torch.isfinite(again.dense()).all()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("codebook, matrix", {"bits": 0}, "bits is 0"),
        ("codebook, matrix", {"bits": 9}, "bits is 9"),
        ("codebook, matrix", {"bits": True}, "bits is True"),
        ("codebook, matrix", {"bits": 4}, "'codes' is .* expected"),
        ("codebook, row", {"bits": 5}, "bits is 5"),
        ("codebook, row", {"scope": "column"}, "scope is 'column'"),
        ("codebook, row", {"scope": ["row"]}, "scope is"),
        ("codebook, row", {"scope": "matrix"}, "'values' is .* expected"),
        ("binary_codes, row", {"bits": 5}, "bits is 5"),
        ("binary_codes, row", {"bits": 2.0}, "bits is 2.0"),
        ("binary_codes, row", {"group": 8}, "group is 8"),
        ("binary_codes, row", {"group": 20}, "group is 20"),
        ("binary_codes, row", {"group": "16"}, "group is '16'"),
        ("binary_codes, groups", {"group": None}, "'scales' is .* expected"),
        ("product_codes", {"centroids": 17}, "centroids is 17"),
        ("product_codes", {"centroids": 256}, "'codes' is .* expected"),
        ("product_codes", {"size": 0}, "size is 0"),
        ("product_codes", {"size": -4}, "size is -4"),
        ("product_codes", {"size": 2**40}, "size is 1099511627776"),
        ("product_codes", {"size": "4"}, "size is '4'"),
        ("product_codes", {"shared": 1}, "shared is 1"),
        ("product_codes", {"shared": True}, "'centroids' is .* expected"),
        ("product_codes", {"norms": None}, "norms is None"),
        ("product_codes", {"norms": True}, "'norms' is missing"),
    ],
)
def test_a_wrong_option_in_the_file_is_named(name, change, message):
    torch.manual_seed(0)
    op = CODED[name]()
    with pytest.raises(TerselmError, match=f"^w: .*{message}"):
        op_from_file({**op.spec(), **change}, stored(op), "w")


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(name, value):
    torch.manual_seed(0)
    op = CODED[name]()
    for key, tensor in stored(op).items():
        if tensor.dtype != torch.float16:
            continue
        broken = tensor.clone()
        broken[1] = value
        with pytest.raises(TerselmError, match=f"'{key[2:]}' holds NaN or infinite"):
            op_from_file(op.spec(), {**stored(op), key: broken}, "w")


@pytest.mark.parametrize("name", CODED)
def test_any_bytes_of_codes_are_codes(name):
    """Whatever the bytes of the codes are, the file opens to a finite matrix."""
    torch.manual_seed(0)
    op = CODED[name]()
    noise = torch.randint(256, op.tensors()["codes"].shape, dtype=torch.uint8)
    again = op_from_file(op.spec(), {**stored(op), "w.codes": noise}, "w")
    assert torch.isfinite(again.dense()).all()


def test_stored_bytes():
    """Rows to a multiple of 16, columns to a multiple of 4; float16 values beside."""
    assert random_codebook(20, 30, 3, "matrix").cost().bytes == 32 * 32 * 3 // 8 + 8 * 2
    assert random_codebook(20, 30, 3, "row").cost().bytes == 32 * 32 * 3 // 8 + 32 * 8 * 2
    assert random_binary_codes(20, 30, 2, None).cost().bytes == 32 * 32 * 2 // 8 + 32 * 2 * 2
    assert random_binary_codes(20, 30, 2, 16).cost().bytes == 32 * 32 * 2 // 8 + 32 * 2 * 2 * 2
    assert random_product_codes(20, 30, 4, 256).cost().bytes == 32 * 8 + 8 * 256 * 4 * 2
    assert random_product_codes(20, 30, 4, 16).cost().bytes == 32 * 8 // 2 + 8 * 16 * 4 * 2
    shared = random_product_codes(20, 30, 4, 256, shared=True, norms=True)
    assert shared.cost().bytes == 32 * 8 + 256 * 4 * 2 + 32 * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Codebook(torch.zeros(3, 4), torch.zeros(1, 3), "matrix"),
        lambda: Codebook(torch.zeros(3, 4), torch.zeros(2, 4), "row"),
        lambda: Codebook(torch.zeros(3, 4), torch.zeros(3, 2), "row"),
        lambda: BinaryCodes(torch.zeros(3, 40), torch.zeros(3, 1, 2), 16),
        lambda: BinaryCodes(torch.zeros(3, 40), torch.zeros(3, 1, 5)),
        lambda: ProductCodes(torch.zeros(3, 2), torch.zeros(3, 16, 4), 12),
        lambda: ProductCodes(torch.zeros(3, 3), torch.zeros(2, 16, 4), 12),
        lambda: ProductCodes(torch.zeros(3, 3), torch.zeros(3, 12, 4), 12),
    ],
)
def test_parts_that_do_not_fit_are_refused(make):
    with pytest.raises(TerselmError, match=r"expected|columns"):
        make()
