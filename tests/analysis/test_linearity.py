"""Local linearity: linear and quadratic models in closed form, Jacobians by torch.func, and directions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyrobust import ops
from pyrobust.analysis.linearity import adversarial_directions, local_linearity, random_directions

EPS = torch.finfo(torch.float64).eps
DISTANCES = (0.0, 0.3, 2.0)


def _inputs(n: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _matrix(rows: int, columns: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 32), nn.Tanh(), nn.Linear(32, 4)
        ).double()


def test_linear_network() -> None:
    weight, x = _matrix(4, 6), _inputs()
    found = local_linearity(lambda x: x.flatten(1) @ weight.T + 3, x, {"r": random_directions(x)}, distances=DISTANCES)
    assert found.distances.tolist() == list(DISTANCES)
    # Three sums of 6 products and a constant, each rounded: |W| |x + z| + 3 bounds the terms, 4 outputs.
    rounding = 4 * 3 * 8 * EPS * (weight.abs().sum() * (x.abs().max() + 2) + 3)
    assert found.deviation["r"].shape == (3, 7)
    assert found.deviation["r"].max() <= rounding
    sigma = torch.linalg.matrix_norm(weight, 2)
    torch.testing.assert_close(found.largest_singular["r"], sigma.expand(3, 7), rtol=1e-12, atol=0)
    v = random_directions(x).flatten(1)
    torch.testing.assert_close(found.change["r"][2], 2 * (v @ weight.T).norm(dim=1), rtol=1e-12, atol=0)


def test_quadratic_model() -> None:
    """fₖ(x) = ½ xᵀAₖx deviates from its linear model by ½ t² ‖(vᵀAₖv)ₖ‖, and has the Jacobian with rows Aₖ(x + t v)."""
    forms = torch.stack([_matrix(6, 6, seed) for seed in range(3)])
    forms = forms + forms.mT
    x = _inputs()

    def model(x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return 0.5 * torch.einsum("ni,kij,nj->nk", flat, forms, flat)

    directions = {"one": random_directions(x, seed=1), "two": 5 * random_directions(x, seed=2)}
    found = local_linearity(model, x, directions, distances=DISTANCES)
    assert list(found.deviation) == ["one", "two"]
    for seed, name in ((1, "one"), (2, "two")):  # directions of any length are made unit vectors
        v = random_directions(x, seed=seed).flatten(1)
        curvature = torch.einsum("ni,kij,nj->nk", v, forms, v).norm(dim=1)
        for i, t in enumerate(DISTANCES):
            torch.testing.assert_close(found.deviation[name][i], 0.5 * t**2 * curvature, rtol=1e-9, atol=1e-13)
            jacobians = torch.einsum("kij,nj->nki", forms, x.flatten(1) + t * v)
            sigma = torch.linalg.matrix_norm(jacobians, 2)
            torch.testing.assert_close(found.largest_singular[name][i], sigma, rtol=1e-9, atol=0)
    relative = found.deviation["one"][1:] / found.change["one"][1:]
    assert torch.equal(found.relative("one")[1:], relative)


def test_layer_and_iteration() -> None:
    """Of a layer with 32 outputs the largest value is found by iteration; the reference is the whole Jacobian."""
    model, x = _network(), _inputs()
    features = model[:5]
    v = random_directions(x)
    found = local_linearity(model, x, {"r": v}, "4", distances=DISTANCES)
    for i, t in enumerate(DISTANCES):
        point = x + t * v
        jacobians = torch.func.vmap(torch.func.jacrev(lambda p: features(p.unsqueeze(0)).squeeze(0)))(point).flatten(2)
        sigma = torch.linalg.matrix_norm(jacobians, 2)
        # A residual of 1e-2 σ leaves an error of 1e-4 σ²/gap; 6 inputs are used up within 6 steps, whatever the gap.
        torch.testing.assert_close(found.largest_singular["r"][i], sigma, rtol=1e-3, atol=0)
        at_x = torch.func.vmap(torch.func.jacrev(lambda p: features(p.unsqueeze(0)).squeeze(0)))(x).flatten(2)
        slope = (at_x @ v.flatten(1).unsqueeze(2)).squeeze(2)
        deviation = (features(point) - features(x) - t * slope).norm(dim=1)
        torch.testing.assert_close(found.deviation["r"][i], deviation, rtol=1e-9, atol=1e-13)
    assert not torch.equal(
        found.deviation["r"], local_linearity(model, x, {"r": v}, distances=DISTANCES).deviation["r"]
    )


def test_batches_seeds_and_traces() -> None:
    model, x = _network(), _inputs()
    model.insert(1, nn.Dropout(0.5))
    model.train()
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    directions = {"r": random_directions(x)}
    one = local_linearity(model, x, directions, "5", distances=DISTANCES)
    two = local_linearity(model, x, directions, "5", distances=DISTANCES)
    small = local_linearity(model, x, directions, "5", distances=DISTANCES, batch_size=3)
    other = local_linearity(model, x, directions, "5", distances=DISTANCES, seed=1)
    assert torch.equal(one.deviation["r"], two.deviation["r"])
    assert torch.equal(one.largest_singular["r"], two.largest_singular["r"])
    torch.testing.assert_close(small.deviation["r"], one.deviation["r"], rtol=1e-9, atol=1e-13)
    assert not torch.equal(other.largest_singular["r"], one.largest_singular["r"])
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_random_directions() -> None:
    x = _inputs(50)
    v = random_directions(x)
    torch.testing.assert_close(v.flatten(1).norm(dim=1), torch.ones(50, dtype=torch.float64), rtol=1e-12, atol=0)
    assert torch.equal(random_directions(x[:9]), v[:9])
    assert not torch.equal(random_directions(x, seed=1), v)


def test_adversarial_directions_of_a_linear_model() -> None:
    """The gradient of the cross-entropy of two classes is along w₁ − w₀ everywhere: steps of eps/2 along it, and projections,
    also from points that are misclassified."""
    weight, x = _matrix(2, 6), _inputs()
    normal = (weight[1] - weight[0]) / (weight[1] - weight[0]).norm()
    for label, sign in ((0, 1), (1, -1)):
        labels = torch.full((7,), label)
        v = adversarial_directions(lambda x: x.flatten(1) @ weight.T, x, labels, eps=0.5, steps=5, bounds=(-9.0, 9.0))
        moved = ops.sample_lp_ball(x, 2.0, 0.5).flatten(1)
        for _ in range(5):
            moved = moved + 0.25 * sign * normal
            moved = moved * (0.5 / moved.norm(dim=1, keepdim=True)).clamp(max=1)
        torch.testing.assert_close(v.flatten(1), moved / moved.norm(dim=1, keepdim=True), rtol=1e-9, atol=1e-9)
    labels = torch.zeros(7, dtype=torch.int64)

    def run(**changed: object) -> torch.Tensor:
        settings = {"eps": 0.5, "steps": 3, "bounds": (0.0, 1.0)} | changed
        return adversarial_directions(lambda x: x.flatten(1) @ weight.T, x, labels, **settings)

    base = run()
    torch.testing.assert_close(run(batch_size=2), base, rtol=1e-12, atol=1e-14)
    for changed in ({"eps": 0.6}, {"steps": 4}, {"bounds": (-1.0, 1.0)}, {"seed": 1}):
        assert not torch.equal(run(**changed), base), changed


def test_adversarial_directions_of_a_confident_network() -> None:
    """The gradients of two classes are along w₁ − w₀ whatever their distance, also where 1 − p_y is 0 in float32."""
    weight, x = _matrix(2, 6).float(), _inputs().float()
    labels = torch.zeros(7, dtype=torch.int64)
    near, far = (
        adversarial_directions(
            lambda x, gap=gap: x.flatten(1) @ weight.T + torch.tensor([gap, 0.0]), x, labels, eps=0.5, steps=3
        )
        for gap in (0.0, 60.0)
    )
    torch.testing.assert_close(far, near, rtol=0, atol=1e-5)  # a few steps of float32


def test_inputs_that_require_a_gradient() -> None:
    x, labels = _inputs(), torch.zeros(7, dtype=torch.int64)
    expected = adversarial_directions(_network(), x, labels, eps=0.5)
    found = adversarial_directions(_network(), x.clone().requires_grad_(), labels, eps=0.5)
    assert torch.equal(found, expected)


def test_plot() -> None:
    pytest.importorskip("matplotlib")
    x = _inputs()
    figure = local_linearity(
        _network(), x, {"one": random_directions(x), "two": random_directions(x, seed=1)}, distances=DISTANCES
    ).plot()
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["one", "two"]
    assert len(right.lines) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"distances": []}, "distances: expected finite numbers"),
        ({"distances": [-1.0]}, "distances: expected finite numbers"),
        ({"distances": [math.inf]}, "distances: expected finite numbers"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"directions": {}}, "directions: expected at least one"),
        ({"directions": {"up": torch.zeros(7, 2, 3, dtype=torch.float64)}}, "directions: expected rows of 'up'"),
        ({"directions": {"up": torch.ones(7, 6, dtype=torch.float64)}}, "directions: expected 'up' as inputs"),
        ({"inputs": torch.full((7, 2, 3), math.nan, dtype=torch.float64)}, "inputs: expected finite"),
        ({"layer": "nowhere"}, "layer: expected one of"),
    ],
)
def test_errors(changed: dict[str, object], message: str) -> None:
    x = _inputs()
    call = {"inputs": x, "directions": {"r": random_directions(x)}, "distances": DISTANCES} | changed
    with pytest.raises(ValueError, match=message):
        local_linearity(_network(), **call)


def test_errors_of_directions() -> None:
    x, labels = _inputs(), torch.zeros(7, dtype=torch.int64)
    with pytest.raises(ValueError, match="eps: expected"):
        adversarial_directions(_network(), x, labels, eps=0.0)
    with pytest.raises(ValueError, match="steps: expected"):
        adversarial_directions(_network(), x, labels, eps=1.0, steps=0)
    with pytest.raises(ValueError, match="labels: expected 0 <= label < 4"):
        adversarial_directions(_network(), x, labels + 4, eps=1.0)
