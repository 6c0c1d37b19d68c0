from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyrobust.data import Data
from pyrobust.evaluation import AttackError, RunError, evaluate

from . import toy_attacks
from .conftest import Halves

SMALL = {"norms": "linf", "batch_size": 4}


def exact(model, inputs, labels, *, norm, bounds):
    """The nearest adversarial point in linf of `Halves`, a hair beyond the boundary."""
    means = inputs.flatten(1).mean(dim=1)
    shift = 0.5 - means + torch.where(means < 0.5, 1e-4, -1e-4)
    return (inputs + shift.view(-1, 1, 1, 1)).clamp(*bounds)


def column(report, name: str) -> np.ndarray:
    return report.results[name].to_numpy(zero_copy_only=False)


def test_figures_by_hand(halves: Halves, points: tuple) -> None:
    report = evaluate(halves, points, attacks=exact, eps=[0.1, 0.2], **SMALL)
    summary = report.summary()
    assert summary["samples"] == 10
    assert summary["clean_accuracy"] == 0.9
    figures = summary["norms"]["linf"]["exact"]
    # Distances of the nine correct samples are 0.05, 0.15, …: two of 0.05 … 0.35 each, one of 0.45 (plus 1e-4).
    assert figures["success_rate"] == 1
    assert figures["median"] == pytest.approx(0.2501, abs=1e-6)
    assert figures["mean"] == pytest.approx((2 * (0.05 + 0.15 + 0.25 + 0.35) + 0.45) / 9 + 1e-4, abs=1e-6)
    assert figures["robust_accuracy"] == [{"eps": 0.1, "accuracy": 0.7}, {"eps": 0.2, "accuracy": 0.5}]
    assert figures["area"] == pytest.approx(0.9 * figures["mean"], abs=1e-9)
    eps, accuracy = report.curve("linf")
    assert accuracy[0] == 0.9
    assert accuracy[-1] == 0
    assert eps[-1] == figures["d_max"]
    assert report.warnings == []
    assert report.curve(math.inf, "exact")[0].tolist() == eps.tolist()


def test_results_hold_a_row_a_task_and_sample_with_all_norms(halves: Halves, points: tuple) -> None:
    results = evaluate(halves, points, attacks=exact, **SMALL).results
    assert len(results) == 10
    assert results["sample_id"].to_pylist() == list(range(10))
    linf = results["linf"].to_numpy()
    assert np.allclose(results["l1"].to_numpy(), 16 * linf, atol=1e-6)
    assert np.allclose(results["l2"].to_numpy(), 4 * linf, atol=1e-6)
    assert (results["l0"].to_numpy() == 16).all()


@pytest.mark.parametrize(
    ("attack", "column_name"),
    [
        (toy_attacks.clean, "adversarial"),
        (toy_attacks.out_of_box, "in_bounds"),
        (toy_attacks.not_a_number, "finite"),
    ],
)
def test_attacks_that_cheat_break_nothing(digits_model: nn.Module, images: tuple, attack, column_name: str) -> None:
    report = evaluate(digits_model, images, norms="l2", attacks=attack, batch_size=16)
    correct = column(report, "correct")
    figures = report.summary()["norms"]["l2"][attack.__name__]
    assert figures["success_rate"] == 0
    assert figures["mean"] is None
    assert figures["median"] == math.inf
    assert not column(report, column_name)[correct].any()
    assert any("although nothing limited the perturbation" in w for w in report.warnings)


def test_points_over_the_budget_count_as_failures(digits_model: nn.Module, images: tuple) -> None:
    arguments = {"norms": "linf", "eps": [0.2], "batch_size": 16}
    honest = evaluate(digits_model, images, attacks=toy_attacks.step_once, **arguments)
    cheat = evaluate(digits_model, images, attacks=toy_attacks.over_budget, **arguments)
    assert honest.summary()["norms"]["linf"]["step_once"]["success_rate"] > 0
    assert cheat.summary()["norms"]["linf"]["over_budget"]["success_rate"] == 0
    assert any("over the budget" in w for w in cheat.warnings)


def test_working_in_place_neither_moves_the_measurement_nor_the_data(digits_model: nn.Module, images: tuple) -> None:
    before = images[0].clone()
    report = evaluate(digits_model, images, norms="linf", attacks=toy_attacks.in_place, batch_size=16)
    assert torch.equal(images[0], before)
    assert (column(report, "linf") > 0.1).all()


@pytest.mark.parametrize(
    ("attack", "message"),
    [(toy_attacks.wrong_shape, "expected torch.float32"), (toy_attacks.raises, "RuntimeError: no such luck")],
)
def test_attacks_that_break_are_told_with_their_samples(digits_model, images: tuple, attack, message: str) -> None:
    with pytest.raises(AttackError, match=rf"attack linf · {attack.__name__}, samples 0–15: {message}"):
        evaluate(digits_model, images, norms="linf", attacks=attack, batch_size=16)


def test_a_sweep_counts_what_a_smaller_eps_broke(digits_model: nn.Module, images: tuple) -> None:
    report = evaluate(
        digits_model, images, norms="linf", attacks=toy_attacks.step_once, eps=[0.4, 0.1, 0.2], batch_size=16
    )
    points = report.summary()["norms"]["linf"]["step_once"]["robust_accuracy"]
    assert [p["eps"] for p in points] == [0.1, 0.2, 0.4]
    adversarial = column(report, "adversarial").reshape(3, 40)
    correct = column(report, "correct")[:40]
    assert [p["accuracy"] for p in points] == [
        float(np.mean(correct & ~adversarial[: k + 1].any(axis=0))) for k in range(3)
    ]
    eps, accuracy = report.curve("linf")
    assert eps.tolist() == [0, 0.1, 0.2, 0.4]
    assert accuracy[0] == report.clean_accuracy


def test_with_several_attacks_the_best_counts_for_each_sample(digits_model: nn.Module, images: tuple) -> None:
    weak = functools.partial(toy_attacks.walk, steps=2)
    report = evaluate(digits_model, images, norms="linf", attacks=[weak, toy_attacks.walk], batch_size=16)
    few, many, best = report.of("linf")
    assert (best.distances == np.minimum(few.distances, many.distances)).all()
    figures = report.summary()["norms"]["linf"]
    assert set(figures) == {"walk(steps=2)", "walk", "best of all"}
    assert figures["walk(steps=2)"]["optimality"] < figures["walk"]["optimality"] <= 1
    assert report.curve("linf")[0].tolist() == best.curve()[0].tolist()
    with pytest.raises(ValueError, match="was not run"):
        report.curve("linf", "other")
    with pytest.raises(ValueError, match="not evaluated"):
        report.curve("l2")


def test_targets_count_only_when_reached(digits_model: nn.Module, images: tuple) -> None:
    targets = (images[1] + 1) % 10
    report = evaluate(digits_model, images, norms="l2", attacks=toy_attacks.walk, targets=targets, batch_size=16)
    hit = column(report, "adversarial")
    assert hit.any()
    assert (column(report, "prediction")[hit] == targets.numpy()[hit]).all()
    with pytest.raises(ValueError, match="differ from the sample's label"):
        evaluate(digits_model, images, norms="l2", attacks=toy_attacks.walk, targets=images[1])


def test_a_sample_gets_the_same_bits_however_many_follow_it(digits_model: nn.Module, images: tuple) -> None:
    arguments = {"norms": "l2", "attacks": toy_attacks.walk, "steps": 5, "batch_size": 16}
    some = evaluate(digits_model, images, samples=37, **arguments).results
    more = evaluate(digits_model, images, **arguments).results
    whole = 32  # those in batches that both runs filled
    assert some.slice(0, whole).equals(more.slice(0, whole))
    assert len(some) == 37


def test_padding_leaves_no_trace_where_the_model_treats_samples_alone(halves: Halves, points: tuple) -> None:
    tables = [evaluate(halves, points, norms="linf", attacks=exact, batch_size=size).results for size in (1, 3, 10, 64)]
    values = [t.drop_columns(["batch_size"]) for t in tables]
    assert all(v.equals(values[0]) for v in values[1:])


def test_the_seed_decides(digits_model: nn.Module, images: tuple) -> None:
    def noisy(model, inputs, labels):
        return (inputs + torch.rand_like(inputs)).clamp(0, 1)  # draws from the global state

    def run(seed: int):
        torch.rand(seed)  # whatever was drawn before must not matter
        return evaluate(digits_model, images, norms="l2", attacks=noisy, seed=seed, batch_size=16).results["l2"]

    assert run(3).equals(run(3))
    assert not run(3).equals(run(4))


def test_the_surroundings_are_left_as_found(images: tuple) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    evaluate(model, images, norms="linf", attacks=toy_attacks.walk, steps=2, batch_size=16)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_data_may_come_in_any_form(halves: Halves, points: tuple) -> None:
    expected = evaluate(halves, points, attacks=exact, samples=7, **SMALL).results
    dataset = TensorDataset(*points)
    arrays = tuple(p.numpy() for p in points)
    for data in (dataset, DataLoader(dataset, batch_size=3), arrays, Data("points", points)):
        assert evaluate(halves, data, attacks=exact, samples=7, **SMALL).results.equals(expected)


def test_functions_are_models_too(points: tuple) -> None:
    halves = Halves()
    report = evaluate(lambda x: halves(x), points, attacks=exact, **SMALL)
    assert report.clean_accuracy == 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norms": "l3"}, "norm: expected"),
        ({"norms": ["l2", 2]}, "different norms"),
        ({"norms": []}, "different norms"),
        ({"norms": None}, "norms: expected"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size: expected an integer"),
        ({"seed": -1}, "seed: expected an integer"),
        ({"seed": 1.5}, "seed: expected an integer"),
        ({"steps": "a"}, "steps: expected an integer"),
        ({"samples": 2.5}, "samples: expected an integer"),
        ({"budget": 5}, "takes a budget"),
        ({"check_masking": -1}, "check_masking"),
        ({"check_masking": True}, "check_masking"),
        ({"samples": 11}, "11 asked for"),
        ({"samples": 0}, "samples"),
        ({"bounds": (0.2, 0.5)}, "inside bounds"),
        ({"resume": True}, "needs out"),
        ({"device": "meta"}, "move it to meta"),
        ({"device": "no_such_device"}, "cannot be used"),
        ({"attacks": "no_such_attack"}, "no_such_attack"),
    ],
)
def test_bad_arguments_are_told_before_anything_runs(halves: Halves, points: tuple, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        evaluate(halves, points, **{"norms": "linf", "attacks": exact, **arguments})


def test_labels_beyond_the_logits_are_refused(halves: Halves, points: tuple) -> None:
    with pytest.raises(ValueError, match="label < 2"):
        evaluate(halves, (points[0], points[1] + 1), attacks=exact, **SMALL)


def test_labels_that_are_no_whole_numbers_are_refused(halves: Halves, points: tuple) -> None:
    for data in ((points[0], points[1] + 0.7), TensorDataset(points[0], points[1] + 0.7)):
        with pytest.raises(TypeError, match="labels: expected an integer dtype"):
            evaluate(halves, data, attacks=exact, **SMALL)


def test_targets_beyond_the_logits_are_refused(halves: Halves, points: tuple) -> None:
    with pytest.raises(ValueError, match="targets: expected classes below 2"):
        evaluate(halves, points, attacks=toy_attacks.walk, targets=points[1] + 2, **SMALL)


def test_the_model_is_attacked_in_the_mode_that_it_is_judged_in(images: tuple) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)).train()
    modes = []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    report = evaluate(model, images, norms="l2", attacks="ddn", steps=3, batch_size=16)
    assert all(modes)
    assert any("training" in warning for warning in report.warnings)


def test_points_are_judged_in_float32_under_autocast(digits_model: nn.Module, images: tuple) -> None:
    modes = []
    digits_model.register_forward_hook(lambda *_: modes.append(torch.is_autocast_enabled("cpu")))

    def nothing(model, inputs, labels):
        modes.clear()
        return inputs

    with torch.autocast("cpu", torch.bfloat16):
        evaluate(digits_model, images, norms="l2", attacks=nothing, batch_size=len(images[0]))
    assert modes
    assert not any(modes)


def test_a_model_that_draws_is_judged_by_other_numbers_than_its_attacker_saw(images: tuple) -> None:
    drawn = []

    def noisy(z):
        noise = torch.rand(len(z))
        drawn.append(noise)
        return torch.stack([z.flatten(1).mean(1), noise], 1)

    evaluate(noisy, (images[0][:16], images[1][:16] * 0), norms="l2", attacks="ddn", steps=3, batch_size=16)
    assert len({tuple(noise.tolist()) for noise in drawn}) == len(drawn)


def test_loaders_that_shuffle_and_other_things_are_refused(halves: Halves, points: tuple) -> None:
    loader = DataLoader(TensorDataset(*points), shuffle=True)
    with pytest.raises(ValueError, match="shuffles"):
        evaluate(halves, loader, attacks=exact)
    with pytest.raises(TypeError, match="expected a name"):
        evaluate(halves, 3, attacks=exact)


def test_progress_reaches_the_total_and_names_what_runs(halves: Halves, points: tuple) -> None:
    seen = []
    evaluate(halves, points, attacks=exact, progress=seen.append, **SMALL)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == 20
    assert {p.title for p in seen} == {"clean predictions", "linf · exact"}


class Cramped(Halves):
    """Has memory for five samples at a time."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(inputs)


def test_a_lack_of_memory_halves_the_batch_and_is_recorded(points: tuple) -> None:
    plain = evaluate(Halves(), points, norms="linf", attacks=exact, batch_size=8)
    cramped = evaluate(Cramped(), points, norms="linf", attacks=exact, batch_size=8)
    assert set(cramped.results["batch_size"].to_pylist()) == {4}
    assert any("Memory ran out: 10 results" in w and "as few as 4" in w for w in cramped.warnings)
    drop = ["batch_size"]
    assert cramped.results.drop_columns(drop).equals(plain.results.drop_columns(drop))


def test_an_attack_alone_may_run_out_of_memory(halves: Halves, points: tuple) -> None:
    def greedy(model, inputs, labels, **arguments):
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return exact(model, inputs, labels, norm="linf", bounds=(0, 1))

    report = evaluate(halves, points, norms=["linf", "l2"], attacks=greedy, batch_size=8)
    assert set(report.results["batch_size"].to_pylist()) == {2}
    assert report.summary()["norms"]["l2"]["greedy"]["success_rate"] == 1


def test_an_out_folder_in_use_is_refused(halves: Halves, points: tuple, tmp_path) -> None:
    evaluate(halves, points, attacks=exact, out=tmp_path / "run", **SMALL)
    with pytest.raises(RunError, match="not empty"):
        evaluate(halves, points, attacks=exact, out=tmp_path / "run", **SMALL)


@pytest.mark.parametrize("change", ["model", "data", "steps", "seed", "batch_size", "check_masking"])
def test_resume_refuses_a_run_that_differs(halves: Halves, points: tuple, tmp_path, change: str) -> None:
    arguments = {"norms": "linf", "attacks": toy_attacks.walk, "steps": 2, "seed": 0, "batch_size": 4}
    evaluate(halves, points, out=tmp_path / "run", **arguments)
    model, data = halves, points
    if change == "model":
        model = Halves(0.4).eval()
    elif change == "data":
        data = points[0] * 0.99, points[1]
    else:
        arguments[change] = 3
    with pytest.raises(RunError, match=change):
        evaluate(model, data, out=tmp_path / "run", resume=True, **arguments)
