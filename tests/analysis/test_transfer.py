"""Transfer matrices of linear models, for which who is fooled by whom is known."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from pyrobust.analysis import transfer_matrix
from pyrobust.analysis.work import Work
from pyrobust.attacks import fgm, pgd
from pyrobust.attacks import transfer as transfer_attack


def axis_model(axis: int):
    """Two classes, divided at 0.5 along one axis."""

    def model(z):
        score = z[:, axis] - 0.5
        return torch.stack([-score, score], 1)

    return model


def points(n=60):
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, (x[:, 0] > 0.5).long()


def test_models_that_look_elsewhere_are_not_fooled():
    x, y = points()
    models = {"first": axis_model(0), "twin": axis_model(0), "second": axis_model(1)}
    eps = 0.2
    found = transfer_matrix(models, x, y, attack=partial(fgm, eps=eps))
    right = torch.stack([model(x).argmax(1) == y for model in models.values()])
    assert found.names == ("first", "twin", "second")
    assert torch.equal(found.accuracy, right.double().mean(1))
    both = right.unsqueeze(1) & right.unsqueeze(0)
    assert torch.equal(found.samples, both.sum(2))
    near = [(x[:, axis] - 0.5).abs() < eps for axis in (0, 0, 1)]
    for source in range(3):
        for target in range(3):
            own = near[target][both[source, target]].double().mean()
            same = (source == 2) == (target == 2)
            assert found.white_box[source, target] == own
            assert found.success[source, target] == (own if same else 0)
            assert found.gap[source, target] == (0 if same else own)


def test_it_is_the_attack_of_that_name_and_the_batches_do_not_matter():
    torch.manual_seed(0)
    models = {
        name: nn.Sequential(nn.Flatten(), nn.Linear(9, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3))
        for name in ("a", "b")
    }
    with torch.no_grad():
        for model in models.values():
            model[1].weight *= 4
    x = torch.rand(50, 1, 3, 3)
    y = models["a"].eval()(x).argmax(1)
    models["a"].train()
    attack = partial(pgd, eps=0.15, steps=5)
    state = torch.get_rng_state()
    found = transfer_matrix(models, x, y, attack=attack, batch_size=20)
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for model in models.values() for module in model.modules())
    for model in models.values():
        model.eval()
    chosen = (models["a"](x).argmax(1) == y) & (models["b"](x).argmax(1) == y)
    for source, target in (("a", "b"), ("b", "a")):
        adv = transfer_attack(models[target], x, y, substitute=models[source], attack=attack)
        share = (models[target](adv).argmax(1) != y)[chosen].double().mean()
        i, j = "ab".index(source), "ab".index(target)
        assert found.success[i, j] == share
        own = (models[target](attack(models[target], x, y)).argmax(1) != y)[chosen].double().mean()
        assert found.white_box[i, j] == own
    assert 0 < found.samples[0, 1] < 50
    whole = transfer_matrix(models, x, y, attack=attack)
    # A product of matrices in another batch may differ in its last bits, and so may a sample at the very boundary.
    assert (whole.success - found.success).abs().max() <= 1 / int(found.samples.min())
    seeded = transfer_matrix(models, x, y, attack=partial(pgd, eps=0.15, steps=1), seed=0)
    assert not torch.equal(
        seeded.success, transfer_matrix(models, x, y, attack=partial(pgd, eps=0.15, steps=1), seed=7).success
    )


def test_points_outside_the_box_fool_nobody():
    x, y = points()

    def jump(model, inputs, labels, **options):
        return (1 - inputs) * 10

    def vanish(model, inputs, labels, **options):
        return inputs * math.nan

    models = {"first": axis_model(0)}
    for attack in (jump, vanish):
        assert transfer_matrix(models, x, y, attack=attack).success.item() == 0
    wide = transfer_matrix(models, x, y, attack=jump, bounds=(0.0, 10.0))
    assert wide.success > 0


def test_no_sample_in_common_is_no_number():
    x, y = points()
    opposite = lambda z: axis_model(0)(z).flip(1)  # noqa: E731
    found = transfer_matrix({"right": axis_model(0), "wrong": opposite}, x, y, attack=partial(fgm, eps=0.1))
    assert found.samples.tolist() == [[60, 0], [0, 0]]
    assert found.success.isnan().tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": {}}, "models: expected"),
        ({"attack": "pgd"}, "attack: expected a callable"),
        (
            {"attack": lambda model, inputs, labels, **options: None},
            "attack: expected a result like inputs, got NoneType",
        ),
        ({"attack": lambda model, inputs, labels, **options: inputs[:1]}, "attack: expected a result like inputs"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"bounds": (0.0, 0.5)}, "inputs: expected values inside"),
        ({"labels": points()[1] + 1}, "labels: expected 0 <= label < 2"),
    ],
)
def test_bad_arguments_are_named(options, message):
    x, y = points()
    given = {"models": {"first": axis_model(0)}, "inputs": x, "labels": y, "attack": partial(fgm, eps=0.1)} | options
    with pytest.raises(ValueError, match=message):
        transfer_matrix(**given)


def test_plot():
    pytest.importorskip("matplotlib")
    x, y = points()
    found = transfer_matrix({"first": axis_model(0), "second": axis_model(1)}, x, y, attack=partial(fgm, eps=0.2))
    left, right = found.plot().axes
    texts = [[text.get_text() for text in axis.texts] for axis in (left, right)]
    assert texts[0] == [f"{100 * value:.0f}" for value in found.success.flatten()]
    assert texts[1] == [f"{100 * value:+.0f}" for value in found.gap.flatten()]
    assert [label.get_text() for label in left.get_yticklabels()] == ["first", "second"]


def test_a_run_is_resumed(tmp_path):
    x, y = points()
    models = {"first": axis_model(0), "second": axis_model(1)}
    asked = []

    def counted(model, inputs, labels, **options):
        asked.append(len(inputs))
        return fgm(model, inputs, labels, eps=0.2, **options)

    first = transfer_matrix(models, x, y, attack=counted, batch_size=25, work=Work(tmp_path))
    assert asked == [25, 25, 25, 25, 10, 10]
    again = transfer_matrix(models, x, y, attack=counted, batch_size=25, work=Work(tmp_path))
    assert len(asked) == 6
    assert torch.equal(first.success, again.success)
