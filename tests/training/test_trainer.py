"""The loop, by its definition: updates against plain arithmetic, and what it leaves of everything it touches."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
import types
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.attacks import pgd
from pyrobust.data import Data, FlipAndShift, digits
from pyrobust.models import small_cnn
from pyrobust.training import (
    Batch,
    CrossEntropy,
    DivergedError,
    Objective,
    Recipe,
    Term,
    Validation,
    accuracies,
    make_optimizer,
    train,
)  # fmt: skip
from pyrobust.training.adversarial import AdversarialTraining
from pyrobust.training.critic import AdversaryCritic
from pyrobust.training.randomness import DRAWS, ORDER, keyed_seed
from pyrobust.training.recipe import plain as plain_data

from .runs import affine, network, plain, samples

pytestmark = pytest.mark.usefixtures("one_thread")


class Seen(Term):
    """The cross-entropy, which writes down what it is given."""

    classifies = True

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []
        self.modes: list[bool] = []
        self.logits: list[Tensor] = []

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        self.batches.append(batch)
        self.modes.append(model.training)
        self.logits.append(batch.logits(model).detach())
        return F.cross_entropy(batch.logits(model).float(), batch.labels)


class Scripted(Term):
    """A loss whose values are told, with the gradient of the mean logit."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self._values = values  # not a setting: NaN differs from itself

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        mean = batch.logits(model).mean()
        return mean - mean.detach() + self._values[batch.step]


def same(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# Updates


def test_sgd_is_plain_arithmetic() -> None:
    """Momentum, decay, clipping, the rate along a cosine, the order of the samples and the remainder, by hand."""
    inputs, labels = samples(50, torch.float64)
    model = affine()
    weights = [p.detach().clone() for p in model.parameters()]
    velocity = [torch.zeros_like(w) for w in weights]
    recipe = Recipe(epochs=3, batch_size=16, lr=0.5, momentum=0.8, weight_decay=0.01, clip=0.3, bounds=(0, 1), seed=7)
    history = train(model, plain(), (inputs, labels), recipe)
    clipped = 0
    for step in range(9):  # 50 // 16 = 3 steps an epoch
        epoch, index = divmod(step, 3)
        generator = torch.Generator().manual_seed(keyed_seed(ORDER, 7, epoch))
        ids = torch.randperm(50, generator=generator)[16 * index :][:16]
        x, target = inputs[ids].flatten(1), F.one_hot(labels[ids], 3)
        error = ((x @ weights[0].T + weights[1]).softmax(1) - target) / 16
        gradients = [error.T @ x, error.sum(0)]
        length = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        clipped += length > 0.3
        rate = 0.5 * (1 + math.cos(math.pi * step / 9)) / 2
        for w, v, g in zip(weights, velocity, gradients, strict=True):
            v.mul_(0.8).add_(g * min(1.0, 0.3 / length) + 0.01 * w)
            w -= rate * v
    assert 0 < clipped < 9  # both cases are met
    for parameter, expected in zip(model.parameters(), weights, strict=True):
        # clip_grad_norm_ divides by length + 1e-6, which moves a step by 1e-6 of the gradient at most.
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=9 * 5 * 0.5 * 1e-6)
    assert [row["step"] for row in history.epochs] == [3, 6, 9]
    assert history.images == 3 * 48


@pytest.mark.parametrize(("name", "decay"), [("adam", 0.0), ("adamw", 0.5)])
def test_the_first_step_of_adam_has_the_length_of_the_rate(name: str, decay: float) -> None:
    model = affine()
    before = [p.detach().clone() for p in model.parameters()]
    train(
        model,
        plain(),
        samples(16, torch.float64),
        Recipe(epochs=1, batch_size=16, optimizer=name, lr=1e-3, weight_decay=decay),
    )
    for parameter, old in zip(model.parameters(), before, strict=True):
        moved = parameter.detach() - old * (1 - 1e-3 * decay)
        torch.testing.assert_close(
            moved.abs(), torch.full_like(old, 1e-3), rtol=1e-4, atol=0
        )  # eps 1e-8 over |g| > 1e-4


def test_momentum_is_adams_first_beta_and_functions_decide_for_themselves() -> None:
    assert make_optimizer("adamw", affine(), 0.1, 0.7, 0.0).param_groups[0]["betas"] == (0.7, 0.999)
    made = make_optimizer(lambda parameters: torch.optim.RMSprop(parameters, lr=0.3), affine(), -1.0, -1.0, -1.0)
    assert isinstance(made, torch.optim.RMSprop)
    assert made.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("cosine", [0.5 + 0.5 * math.cos(math.pi * k / 8) for k in range(1, 9)]),
        ("steps", [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01]),
        (lambda optimizer, steps: torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2], gamma=0.5), [1, 1, 1] + 5 * [0.5]),
    ],
)  # fmt: skip
def test_schedules(schedule, rates: list[float]) -> None:
    recipe = Recipe(epochs=4, batch_size=8, lr=0.2, schedule=schedule, log_every=1)
    history = train(affine(), plain(), samples(16, torch.float64), recipe)
    assert [row["lr"] for row in history.steps] == pytest.approx([0.2 * rate for rate in rates], rel=1e-12, abs=1e-15)


def test_averaged_weights_follow_their_recursion() -> None:
    snapshots: list[list[Tensor]] = []
    model = network()
    parameters = [name for name, _ in model.named_parameters()]
    train(
        model, plain(), samples(), Recipe(epochs=3, batch_size=10, lr=0.1, ema=0.9, log_every=1),
        on_log=lambda done, total, row: snapshots.append([p.detach().double() for p in model.parameters()])
        if "images_per_second" in row else None,
    )  # fmt: skip
    assert len(snapshots) == 21
    averaged = snapshots[0]
    for weights in snapshots[1:]:
        averaged = [0.9 * old + 0.1 * new for old, new in zip(averaged, weights, strict=True)]
    for name, expected in zip(parameters, averaged, strict=True):
        # 20 roundings of float32, of which the oldest are damped: below 20 · 2⁻²⁴ of weights below 1.
        torch.testing.assert_close(model.get_parameter(name).detach().double(), expected, rtol=0, atol=1.2e-6)
    without = network()
    train(without, plain(), samples(), Recipe(epochs=3, batch_size=10, lr=0.1))
    assert torch.equal(model[1].running_mean, without[1].running_mean)  # buffers are the model's
    assert not torch.equal(model[5].weight, without[5].weight)


# What terms are given


def test_batches_hold_what_terms_are_promised() -> None:
    seen = Seen()
    inputs, labels = samples(50)
    train(network(), Objective(ce=seen), (inputs, labels), Recipe(epochs=2, batch_size=16, seed=3))
    assert [b.step for b in seen.batches] == list(range(6))
    assert [b.epoch for b in seen.batches] == [k / 3 for k in range(6)]
    assert all(b.seed == 3 and b.bounds == (0.0, 1.0) and len(b.labels) == 16 for b in seen.batches)
    for batch in seen.batches:
        assert torch.equal(batch.inputs, inputs[batch.sample_ids])
        assert torch.equal(batch.labels, labels[batch.sample_ids])
        assert not batch.inputs.requires_grad
    epochs = [torch.cat([b.sample_ids for b in seen.batches[k : k + 3]]) for k in (0, 3)]
    assert all(len(ids.unique()) == 48 for ids in epochs)  # none twice
    assert not torch.equal(*epochs)
    assert all(seen.modes)


def test_the_input_requires_its_gradient_where_a_term_needs_it_even_before_prepare() -> None:
    class Differentiating(Seen):
        needs_input_grad = True

        def prepare(self, model: nn.Module, batch: Batch) -> None:
            assert batch.logits(model).requires_grad

        def forward(self, model: nn.Module, batch: Batch) -> Tensor:
            loss = super().forward(model, batch)
            (grad,) = torch.autograd.grad(loss, batch.inputs, create_graph=True)
            return loss + grad.square().sum()

    inputs = samples()[0]
    train(network(), Objective(term=Differentiating()), samples(), Recipe(epochs=1, batch_size=16))
    assert not inputs.requires_grad


def test_augmentation_is_keyed_and_used() -> None:
    calls: list[tuple[list[int], int, int]] = []
    shift = FlipAndShift(flip=True, shift=1)

    def augment(inputs: Tensor, sample_ids: Tensor, step: int, seed: int) -> Tensor:
        calls.append((sample_ids.tolist(), step, seed))
        return shift(inputs, sample_ids, step, seed)

    seen = Seen()
    inputs = samples()[0]
    train(network(), Objective(ce=seen), samples(), Recipe(epochs=1, batch_size=16, seed=3, augment=augment))
    assert calls == [(b.sample_ids.tolist(), b.step, 3) for b in seen.batches]
    for batch in seen.batches:
        assert torch.equal(batch.inputs, shift(inputs[batch.sample_ids], batch.sample_ids, batch.step, 3))
        assert not torch.equal(batch.inputs, inputs[batch.sample_ids])


def test_a_term_in_place_of_an_objective_is_named() -> None:
    with pytest.raises(TypeError, match="objective: expected an Objective, as Objective"):
        train(nn.Linear(2, 2), CrossEntropy(), (torch.rand(4, 2), torch.zeros(4, dtype=torch.int64)), Recipe(epochs=1))


def test_the_training_part_of_named_data_is_taken() -> None:
    one, two = network(), network()
    train(one, plain(), Data("noise", test=samples(9), train=samples()), Recipe(epochs=1, batch_size=16))
    train(two, plain(), samples(), Recipe(epochs=1, batch_size=16))
    assert same(one, two)
    with pytest.raises(ValueError, match="data: noise has no training part"):
        train(one, plain(), Data("noise", test=samples(9)), Recipe(epochs=1, batch_size=16))


# What is left as found


def test_same_seed_same_bits_and_the_global_random_state_is_neither_read_nor_moved() -> None:
    results = []
    for seed, world in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(world)
        model = network()
        before = torch.get_rng_state()
        train(model, plain(), samples(), Recipe(epochs=2, batch_size=16, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
        results.append(model)
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_dropout_follows_from_seed_and_step() -> None:
    seen = Seen()
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Identity())
    model.append(nn.Linear(16, 3))
    masks: list[Tensor] = []
    model[2].register_forward_hook(lambda module, given, out: masks.append(out.detach()))
    train(model, Objective(ce=seen), samples(), Recipe(epochs=1, batch_size=16, seed=4))
    for batch, mask in zip(seen.batches, masks, strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(keyed_seed(DRAWS, 4, batch.step, 0))
            assert torch.equal(mask, F.dropout(batch.inputs.flatten(1), 0.5))


def test_flags_statistics_and_gradients() -> None:
    """Losses in training mode, attacks and validation in evaluation mode without touching statistics."""
    model, modes = network(), []
    model.register_forward_hook(lambda module, given, out: modes.append((module.training, module[1].training)))
    recipe = Recipe(epochs=2, batch_size=56, validation=Validation(0.2, eps=0.1, steps=3))
    train(model, Objective(adversarial=AdversarialTraining(eps=0.1, steps=2)), samples(), recipe)
    ascent, loss = [(False, False)] * 2, [(True, True)]
    validated = [(False, False)] * (1 + 5 + 1)  # clean, PGD of 3 steps, its points
    assert modes == (ascent + loss + validated) * 2
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert int(model[1].num_batches_tracked) == 2


# Validation


def test_held_out_samples_are_never_trained_on_and_robust_accuracy_is_pgds() -> None:
    seen = Seen()
    inputs, labels = samples()
    validation = Validation(0.3, eps=0.05, norm="l2", steps=4, batch_size=8)
    model = network()
    history = train(
        model, Objective(ce=seen), (inputs, labels), Recipe(epochs=3, batch_size=10, lr=0.05, validation=validation)
    )
    trained_on, held = validation.split(70, 0)
    assert len(held) == 21
    assert sorted([*trained_on.tolist(), *held.tolist()]) == list(range(70))
    assert set(torch.cat([b.sample_ids for b in seen.batches]).tolist()) <= set(trained_on.tolist())
    x, y = inputs[held], labels[held]
    adv = pgd(model, x, y, eps=0.05, norm="l2", steps=4, sample_ids=held)
    last = history.epochs[-1]
    assert last["clean"] == float((model(x).argmax(1) == y).double().mean())
    assert last["robust"] == float((model(adv).argmax(1) == y).double().mean())
    assert not torch.equal(validation.split(70, 1)[1], held)


def test_robust_accuracy_of_a_linear_model_is_its_closed_form() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.ones(16), -torch.ones(16)]))
        model[1].weight[:, 8:] *= -1
    inputs = samples(200)[0] * 0.6 + 0.2  # far enough from the bounds
    scores = inputs.flatten(1)[:, :8].sum(1) - inputs.flatten(1)[:, 8:].sum(1)
    labels = (scores < 0).long()
    labels[:20] = 1 - labels[:20]
    found = accuracies(model, inputs, labels, torch.arange(200), eps=0.05, steps=5)
    survive = (scores.abs() > 16 * 0.05) & (torch.arange(200) >= 20)
    assert ((scores.abs() - 16 * 0.05).abs() > 1e-4).all()  # rounding decides nothing
    assert found == {"clean": 0.9, "robust": pytest.approx(float(survive.double().mean()), abs=1e-12)}
    assert accuracies(model, inputs, labels, torch.arange(200)) == {"clean": 0.9}


def test_training_stops_early_where_the_measure_no_longer_improves() -> None:
    recipe = Recipe(epochs=50, batch_size=10, lr=1e-9, validation=Validation(0.2), patience=3)
    history = train(affine(torch.float32), plain(), samples(), recipe)
    assert (history.stopped, history.best_epoch, len(history.epochs)) == ("early", 1, 4)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_epoch_is_kept_when_asked(ema: float | None) -> None:
    """A rate so high that epochs get worse again."""
    states: dict[float, dict[str, Tensor]] = {}
    model = network()
    recipe = Recipe(
        epochs=8,
        batch_size=10,
        lr=0.5,
        schedule="constant",
        ema=ema,
        validation=Validation(0.3, batch_size=7),
        keep_best=True,
    )
    history = train(
        model, plain(), samples(), recipe,
        on_log=lambda done, total, row: states.update({row["epoch"]: {k: v.clone() for k, v in model.state_dict().items()}}),
    )  # fmt: skip
    measures = [row["clean"] for row in history.epochs]
    assert history.best == max(measures) > measures[-1]
    assert history.best_epoch == 1 + measures.index(max(measures))
    held = recipe.validation.split(70, 0)[1]
    assert accuracies(model, *samples(), held) == {"clean": history.best}
    if ema is None:
        kept = states[history.best_epoch]
        assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


# Trouble


@pytest.mark.parametrize(("value", "log_every"), [(math.nan, 50), (math.inf, 4), (-math.inf, 1)])
def test_a_loss_that_is_not_finite_is_told_with_its_step_and_term(value: float, log_every: int, tmp_path: Path) -> None:
    values = [1.0] * 20
    values[12] = value
    objective = Objective(ce=CrossEntropy(), culprit=(0.5, Scripted(values)))
    recipe = Recipe(epochs=2, batch_size=7, log_every=log_every)
    with pytest.raises(DivergedError, match=rf"at step 12 \(counted from 0; loss/ce = [\d.]+, loss/culprit = {value}"):
        train(network(), objective, samples(), recipe, out=tmp_path, checkpoint_minutes=0)
    with pytest.raises(DivergedError, match="at step 12"):  # the last checkpoint is from before
        train(network(), objective, samples(), recipe, out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer >= 1"),
        ({"batch_size": 71}, "batch_size: expected at most the 70 samples"),
        ({"batch_size": 60, "validation": Validation(0.2)}, "batch_size: expected at most the 56 samples"),
        ({"optimizer": "lion"}, "optimizer: expected sgd, adam, adamw"),
        ({"lr": 0.0}, "lr: expected a finite number > 0"),
        ({"momentum": 1.0}, "momentum: expected a finite number in"),
        ({"weight_decay": -1}, "weight_decay: expected"),
        ({"schedule": "linear"}, "schedule: expected constant, cosine, steps"),
        ({"clip": 0}, "clip: expected"),
        ({"ema": 1.0}, "ema: expected"),
        ({"amp": "int8"}, "amp: expected"),
        ({"amp": "float16"}, 'amp: "float16" needs a CUDA device'),
        ({"patience": 3}, "validation: expected one"),
        ({"keep_best": True}, "validation: expected one"),
        ({"patience": 0, "validation": Validation()}, "patience: expected"),
        ({"bounds": (0.0, 0.5)}, "inputs: expected values inside bounds"),
        ({"bounds": (1.0, 0.0)}, "bounds: expected finite low < high"),
        ({"seed": -1}, "seed: expected an integer >= 0"),
        ({"log_every": 0}, "log_every: expected"),
    ],
)  # fmt: skip
def test_wrong_recipes_are_named(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(affine(torch.float32), plain(), samples(), Recipe(**{"epochs": 1, "batch_size": 16, **changed}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"share": 1.0}, "share: expected"), ({"eps": 0.0}, "eps: expected"), ({"norm": "l0"}, "norm: expected"),
        ({"steps": 0}, "steps: expected"), ({"batch_size": 0}, "batch_size: expected"),
    ],
)  # fmt: skip
def test_wrong_validations_are_named(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Validation(**changed)


# Precision and compilation


def test_autocast_trains_float32_weights_by_bfloat16_passes() -> None:
    """A term that predicts without gradients first must not take the gradients of the others."""

    class Peeking(Seen):
        def prepare(self, model: nn.Module, batch: Batch) -> None:
            with torch.no_grad():
                model(batch.inputs)

    seen, model = Peeking(), small_cnn()
    history = train(model, Objective(ce=seen), digits(), Recipe(epochs=6, batch_size=64, lr=0.05, amp="bfloat16"))
    assert {z.dtype for z in seen.logits} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact = small_cnn()
    reference = train(exact, plain(), digits(), Recipe(epochs=6, batch_size=64, lr=0.05))
    # The first losses agree to bfloat16's rounding, 2⁻⁸ of logits below 1, and the trained accuracies to a few points.
    assert abs(history.steps[0]["loss"] - reference.steps[0]["loss"]) < 0.05
    test = [accuracies(m, *digits().test, torch.arange(599))["clean"] for m in (model, exact)]
    assert min(test) > 0.85


def test_compiled_models_train_to_the_same_weights() -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    one, two = affine(torch.float32), affine(torch.float32)
    train(one, plain(), samples(), Recipe(epochs=1, batch_size=16, lr=0.1))
    train(two, plain(), samples(), Recipe(epochs=1, batch_size=16, lr=0.1, compile=True))
    assert list(two.state_dict()) == list(one.state_dict())
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=4 * 16 * 2**-24)  # 4 steps of sums over 16, in another order


def test_compilation_is_refused_where_the_input_gradient_is_differentiated() -> None:
    class Differentiating(Seen):
        needs_input_grad = True

    with pytest.raises(ValueError, match="compile: a term differentiates"):
        train(network(), Objective(t=Differentiating()), samples(), Recipe(epochs=1, batch_size=16, compile=True))
    critic = Objective(t=AdversaryCritic(3, critic=nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="compile: a term differentiates"):
        train(network(), critic, samples(), Recipe(epochs=1, batch_size=16, compile=True))


def test_settings_are_told_apart_by_what_functions_are_given() -> None:
    told = [
        plain_data(value) for value in (partial(pgd, eps=1), partial(pgd, 1), partial(pgd, 2), {"a": 1}, {"a": 2}, pgd)
    ]
    assert all(told.count(one) == 1 for one in told)


# Logs


def test_logs_are_complete_and_weighted_as_told(tmp_path: Path) -> None:
    values = [float(k) for k in range(14)]
    objective = Objective(ce=CrossEntropy(), told=(0.5, Scripted(values)))
    recipe = Recipe(epochs=2, batch_size=10, lr=1e-3, log_every=3, validation=Validation(0.01))
    calls: list[tuple[int, int]] = []
    history = train(
        network(),
        objective,
        samples(71),
        recipe,
        out=tmp_path,
        on_log=lambda done, total, row: calls.append((done, total)),
    )
    assert [row["step"] for row in history.steps] == [3, 6, 7, 10, 13, 14]  # an interval ends with its epoch
    assert [row["loss/told"] for row in history.steps] == [1, 4, 6, 8, 11, 13]
    assert [row["loss/told"] for row in history.epochs] == [3, 10]
    for row in history.steps:
        assert row["loss"] == pytest.approx(row["loss/ce"] + 0.5 * row["loss/told"], rel=1e-6)
        assert row["images_per_second"] > 0
    assert calls == [(step, 14) for step in (3, 6, 7, 7, 10, 13, 14, 14)]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line.pop("kind") for line in lines] == ["steps", "steps", "steps", "epoch"] * 2
    assert lines == [*history.steps[:3], history.epochs[0], *history.steps[3:], history.epochs[1]]
    with (tmp_path / "log.csv").open(newline="") as file:
        table = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert table == history.epochs
    assert 0 < history.seconds == history.epochs[-1]["seconds"]
    assert history.images_per_second == 140 / history.seconds


def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (folder, purge_step) == (str(tmp_path / "tensorboard"), 0)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0, 0))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    history = train(network(), plain(), samples(), Recipe(epochs=1, batch_size=70), out=tmp_path)
    row, epoch = history.steps[0], history.epochs[0]
    assert written == [
        *[(f"steps/{key}", row[key], 1) for key in ("lr", "loss", "loss/ce", "images_per_second")],
        *[(f"epoch/{key}", epoch[key], 1) for key in ("lr", "loss", "loss/ce", "seconds")],
        ("closed", 0, 0),
    ]


# The job


def test_adversarial_training_makes_digits_robust() -> None:
    found = {}
    for name, objective in (("plain", plain()), ("adversarial", Objective(at=AdversarialTraining(eps=0.1, steps=5)))):
        model = small_cnn()
        recipe = Recipe(epochs=15, batch_size=64, optimizer="adam", lr=2e-3, validation=Validation(eps=0.1))
        train(model, objective, digits(), recipe)
        found[name] = accuracies(model, *digits().test, torch.arange(599), eps=0.1)
    assert min(part["clean"] for part in found.values()) > 0.88
    assert found["adversarial"]["robust"] > found["plain"]["robust"] + 0.1  # 60 of 599 samples


def test_cuda_gives_the_float16_option_its_loss_scaling(cuda: torch.device) -> None:
    model = small_cnn().to(cuda)
    inputs, labels = (part.to(cuda) for part in digits().train)
    recipe = Recipe(epochs=6, batch_size=64, lr=0.05, amp="float16", validation=Validation(eps=0.1))
    history = train(model, Objective(at=AdversarialTraining(eps=0.05, steps=2)), (inputs, labels), recipe)
    assert history.epochs[-1]["clean"] > 0.8
    assert ops.lp_norm(inputs[:2], "l2").device.type == "cuda"
