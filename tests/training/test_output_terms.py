"""Objectives of the logits and the weights alone: smoothing, confidence, pairing, squeezing, wrong labels, decay, BANG."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyrobust.data import digits
from pyrobust.training import (
    Bang,
    CleanLogitPairing,
    ConfidencePenalty,
    CrossEntropy,
    DisturbLabel,
    L1Decay,
    L2Decay,
    LabelSmoothing,
    LogitSqueezing,
    Objective,
)

from .toys import (
    CLASSES,
    Passes,
    batch_of,
    clean_and_robust,
    gradients,
    left_as_found,
    network,
    on_digits,
    permuted,
    plain_on_digits,
    value,
)

EXACT = {"rtol": 1e-12, "atol": 1e-14}  # a few dozen roundings of float64
TERMS = [
    LabelSmoothing(),
    ConfidencePenalty(),
    CleanLogitPairing(),
    LogitSqueezing(),
    DisturbLabel(0.5),
    L1Decay(),
    L2Decay(),
    Bang(),
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


# ---- formulas ----


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_is_the_cross_entropy_with_smooth_labels(smoothing):
    model, batch = network(), batch_of()
    p = model(batch.inputs).softmax(1)
    targets = (1 - smoothing) * torch.eye(CLASSES, dtype=p.dtype)[batch.labels] + smoothing / CLASSES
    hand = -(targets * p.log()).sum(1).mean()
    torch.testing.assert_close(value(LabelSmoothing(smoothing), model, batch), hand, **EXACT)


def test_the_confidence_penalty_is_the_negative_entropy():
    model, batch = network(), batch_of()
    entropies = torch.distributions.Categorical(logits=model(batch.inputs)).entropy()
    torch.testing.assert_close(value(ConfidencePenalty(), model, batch), -entropies.mean(), **EXACT)
    with torch.no_grad():
        model[-1].weight.zero_()
        model[-1].bias.zero_()
    assert float(value(ConfidencePenalty(), model, batch_of()).detach()) == pytest.approx(-math.log(CLASSES), rel=1e-14)
    with torch.no_grad():
        model[-1].bias[0] = 1e4  # certain: 0 · log 0 is 0
    assert value(ConfidencePenalty(), model, batch_of()) == 0


def test_clean_pairs_are_neighbours_in_the_batch():
    model, batch = network(), batch_of()
    z = model(batch.inputs)
    hand = sum(((z[i] - z[(i + 1) % len(z)]) ** 2).mean() for i in range(len(z))) / len(z)
    torch.testing.assert_close(value(CleanLogitPairing(), model, batch), hand, **EXACT)
    assert value(CleanLogitPairing(), model, permuted(batch, torch.tensor([2]))) == 0


def test_squeezing_is_the_mean_length_of_the_logits():
    model, batch = network(), batch_of()
    hand = torch.stack([row.dot(row).sqrt() for row in model(batch.inputs)]).mean()
    torch.testing.assert_close(value(LogitSqueezing(), model, batch), hand, **EXACT)


def test_decay_takes_the_weights_that_train_and_no_bias():
    model, batch = network(extras=True), batch_of()
    model[1].weight.requires_grad_(False)
    weight = model[-1].weight
    torch.testing.assert_close(value(L2Decay(), model, batch), 0.5 * weight.pow(2).sum(), **EXACT)
    torch.testing.assert_close(value(L1Decay(), model, batch), weight.abs().sum(), **EXACT)
    for term, expected in ((L2Decay(), weight), (L1Decay(), weight.sign())):
        torch.testing.assert_close(
            torch.autograd.grad(value(term, model, batch), weight)[0], expected.detach(), **EXACT
        )


def test_decay_has_a_derivative_at_zero():
    model = network()
    with torch.no_grad():
        model[-1].weight.zero_()
    for term in (L1Decay(), L2Decay()):
        assert (torch.autograd.grad(value(term, model, batch_of()), model[-1].weight)[0] == 0).all()


# ---- wrong labels ----


def test_disturbed_labels_have_the_distribution_of_the_paper():
    count, rate = 40_000, 0.4
    batch = batch_of(count)
    drawn = DisturbLabel(rate).labels(batch, CLASSES)
    share = (drawn != batch.labels).double().mean().item()
    expected = rate * (1 - 1 / CLASSES)
    # Five standard deviations of a share of 40,000.
    assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / count)
    wrong = drawn[(drawn != batch.labels) & (batch.labels == 0)]
    counts = torch.bincount(wrong, minlength=CLASSES).double()
    assert counts[0] == 0
    assert (counts[1:] - len(wrong) / 3).abs().max() < 5 * math.sqrt(len(wrong) * 2 / 9)
    assert torch.equal(DisturbLabel(0.0).labels(batch, CLASSES), batch.labels)
    everywhere = DisturbLabel(1.0).labels(batch, CLASSES)
    assert abs((everywhere == batch.labels).double().mean().item() - 1 / CLASSES) < 5 * math.sqrt(3 / 16 / count)


def test_disturbed_labels_are_keyed_by_seed_sample_and_step():
    term, batch = DisturbLabel(1.0), batch_of(200)
    drawn, order = term.labels(batch, 10), torch.randperm(200, generator=torch.Generator().manual_seed(0))[:50]
    assert torch.equal(term.labels(permuted(batch, order), 10), drawn[order])
    for key in ({"step": 4}, {"seed": 1}):
        other = term.labels(batch_of(200, **key), 10)
        assert 0.02 < (other == drawn).double().mean() < 0.2  # one in ten agrees by chance


def test_the_loss_is_that_of_the_disturbed_labels():
    model, batch, term = network(), batch_of(50), DisturbLabel(0.5)
    labels = term.labels(batch, CLASSES)
    torch.testing.assert_close(value(term, model, batch), F.cross_entropy(model(batch.inputs), labels), **EXACT)


# ---- BANG ----


def adjusted_by_hand(model, batch, epsilon, ratio):
    """The gradient of every linear layer that trains, call by call and sample by sample; κ_i is that at its output."""
    calls = []

    def watch(layer, inputs, output):
        calls.append((layer, inputs[0].detach().clone(), output))
        return 1 * output  # for an in-place function to change, rather than what is kept

    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(watch) for layer in linear]
    z = model(batch.inputs)
    for hook in hooks:
        hook.remove()
    kappas = torch.autograd.grad(F.cross_entropy(z, batch.labels), [output for _, _, output in calls])
    wrong = z.argmax(1) != batch.labels
    found = {parameter: torch.zeros_like(parameter) for layer in linear for parameter in layer.parameters()}
    for (layer, before, _), kappa in zip(calls, kappas, strict=True):
        norms = [row.norm() for row in kappa]
        top = max(norms)
        for row, x, norm, missed in zip(kappa, before, norms, wrong, strict=True):
            eps = epsilon * (ratio if missed else 1)
            scaled = row * (top / norm) ** (eps * (1 - norm / top))
            found[layer.weight] += torch.outer(scaled, x)
            found[layer.bias] += scaled
    return [gradient.detach() for parameter, gradient in found.items() if parameter.requires_grad]


@pytest.mark.parametrize(("epsilon", "ratio"), [(0.8, 1.0), (0.8, 0.3), (1.0, 0.0)])
def test_bang_scales_the_gradient_of_every_layer_by_the_formula(epsilon, ratio):
    model, batch = network(), batch_of(8)
    with torch.no_grad():
        model[-1].weight *= 5  # so that samples differ
    batch.labels[::2] = model(batch.inputs).argmax(1)[::2]  # so that some are right
    ours = gradients(Bang(epsilon, ratio), model, batch)
    hand = adjusted_by_hand(model, batch, epsilon, ratio)
    torch.testing.assert_close(ours, hand, rtol=1e-11, atol=1e-14)


def test_without_epsilon_bang_is_plain_training():
    model, batch = network(), batch_of()
    torch.testing.assert_close(value(Bang(0.0), model, batch), value(CrossEntropy(), model, batch_of()), **EXACT)
    torch.testing.assert_close(
        gradients(Bang(0.0), model, batch), gradients(CrossEntropy(), model, batch_of()), **EXACT
    )


def test_bang_leaves_the_clean_logits_of_other_terms_alone():
    model, batch = network(), batch_of()
    both = Objective(bang=Bang(), ce=CrossEntropy())
    loss, _ = both(model, batch)
    parameters = list(model.parameters())
    together = torch.autograd.grad(loss, parameters)
    apart = [
        a + b
        for a, b in zip(gradients(Bang(), model, batch_of()), gradients(CrossEntropy(), model, batch_of()), strict=True)
    ]
    torch.testing.assert_close(list(together), apart, **EXACT)


class Residual(nn.Module):
    """A layer used twice, a shared input, a frozen layer, and in-place rectifiers."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.twice, self.last = nn.Linear(12, 9), nn.Linear(9, 9), nn.Linear(9, 4)
            self.frozen = nn.Linear(9, 9).requires_grad_(False)

    def forward(self, x):
        x = torch.relu_(self.first(x.flatten(1)))
        x = x + torch.relu_(self.twice(x)) + torch.sigmoid(self.frozen(x))
        return self.last(x + self.twice(x))


def test_bang_works_for_residual_networks_with_in_place_rectifiers():
    model, batch = Residual().double(), batch_of(8)
    ours = gradients_of_trained(Bang(0.9, 0.4), model)
    hand = dict(zip((p for p in model.parameters() if p.requires_grad), ours, strict=True))
    order = [
        p for layer in model.modules() if isinstance(layer, nn.Linear) for p in layer.parameters() if p.requires_grad
    ]
    torch.testing.assert_close(
        [hand[p] for p in order], adjusted_by_hand(model, batch, 0.9, 0.4), rtol=1e-11, atol=1e-14
    )
    assert model.frozen.weight.grad is None
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def gradients_of_trained(term, model):
    model.zero_grad(set_to_none=True)
    value(term, model, batch_of(8)).backward()
    return [p.grad for p in model.parameters() if p.requires_grad]


def test_a_layer_that_mixes_samples_is_named():
    model = nn.Sequential(
        nn.Flatten(0, 1), nn.Linear(4, 2), nn.Unflatten(0, (6, 3)), nn.Flatten(), nn.Linear(6, 4)
    ).double()
    with pytest.raises(ValueError, match="model: expected layers that keep the 6 samples apart"):
        value(Bang(), model, batch_of(6))
    assert not any(layer._forward_hooks for layer in model.modules())


def test_bang_of_a_batch_without_gradients_is_zero():
    model, batch = network(), batch_of()
    with torch.no_grad():
        model[-1].weight.zero_()
        model[-1].bias.zero_()
        model[-1].bias[0] = 1e4
    batch.labels.zero_()
    assert all((g == 0).all() for g in gradients(Bang(), model, batch))


# ---- what training relies on ----


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_one_forward_and_one_backward_pass_and_no_random_numbers_of_torch(term):
    model, batch = network(), batch_of()
    passes = Passes(model)
    decays = isinstance(term, (L1Decay, L2Decay))
    with left_as_found(model):
        loss, _ = Objective(**({} if term.classifies and not decays else {"ce": CrossEntropy()}), term=term)(
            model, batch
        )
        torch.autograd.grad(loss, list(model.parameters()))
    assert (passes.forward, passes.backward) == (1, 1)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_terms_work_under_autocast_and_give_the_same_bits(term):
    losses = []
    for _ in range(2):
        model, batch = network(dtype=torch.float32), batch_of(dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = value(term, model, batch)
        loss.backward()
        assert loss.dtype == torch.float32
        assert model[1].weight.grad.isfinite().all()
        losses.append((loss.detach(), model[1].weight.grad))
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelSmoothing(1.1), "smoothing: expected"),
        (lambda: DisturbLabel(-0.1), "rate: expected"),
        (lambda: Bang(2.0), "epsilon: expected"),
        (lambda: Bang(0.5, ratio="all"), "ratio: expected"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- effect ----


def measures(model):
    """Entropy of the predictions, length of the logits, and that of the weights, on the test digits."""
    with torch.no_grad():
        z = model(digits().test[0])
        entropy = torch.distributions.Categorical(logits=z).entropy().mean().item()
        weights = [p for p in model.parameters() if p.ndim > 1]
        return {
            "entropy": entropy,
            "logits": z.norm(dim=1).mean().item(),
            "l2": sum(float(p.square().sum()) for p in weights),
            "l1": sum(float(p.abs().sum()) for p in weights),
        }


@pytest.mark.parametrize(
    ("objective", "measure", "factor"),
    [
        (Objective(smoothing=LabelSmoothing(0.2)), "entropy", 3),
        (Objective(ce=CrossEntropy(), penalty=(0.5, ConfidencePenalty())), "entropy", 3),
        (Objective(disturbed=DisturbLabel(0.2)), "entropy", 3),
        (Objective(ce=CrossEntropy(), pairing=(0.5, CleanLogitPairing())), "logits", 1 / 3),
        (Objective(ce=CrossEntropy(), squeezing=(0.2, LogitSqueezing())), "logits", 1 / 2),
        (Objective(ce=CrossEntropy(), decay=(1e-2, L2Decay())), "l2", 2 / 3),
        (Objective(ce=CrossEntropy(), decay=(1e-3, L1Decay())), "l1", 2 / 3),
    ],
    ids=["smoothing", "confidence", "disturbed", "pairing", "squeezing", "l2", "l1"],
)
def test_training_has_the_effect_that_the_term_asks_for(objective, measure, factor):
    """By a factor that a change of the seed does not reach: entropies, lengths and norms are means over thousands."""
    plain, trained = measures(plain_on_digits())[measure], measures(on_digits(objective))[measure]
    assert trained >= factor * plain if factor > 1 else trained <= factor * plain


def test_logit_pairing_raises_robustness_to_a_weak_attack():
    """What the seed 000 discusses it for; 10 points are 3.5 standard errors of 300 images."""
    trained = on_digits(Objective(ce=CrossEntropy(), pairing=(0.5, CleanLogitPairing())))
    assert clean_and_robust(trained)[1] >= clean_and_robust(plain_on_digits())[1] + 0.10


def test_bang_keeps_the_gradients_of_confident_samples_alive():
    """Its claim: trained longer on samples that are right, margins grow. The mean logit of the label gains a third."""

    def mean_margin(model):
        inputs, labels = digits().test
        with torch.no_grad():
            z = model(inputs)
        others = z.scatter(1, labels.unsqueeze(1), -math.inf).amax(1)
        return (z.gather(1, labels.unsqueeze(1)).squeeze(1) - others).mean().item()

    assert mean_margin(on_digits(Objective(bang=Bang()))) > 4 / 3 * mean_margin(plain_on_digits())
