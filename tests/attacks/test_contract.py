"""What every attack promises: nothing that was passed is changed, bad input is named, and results repeat bit for
bit."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from pyrobust.attacks import (
    alma,
    apgd,
    bim,
    carlini_wagner,
    confident_ascent,
    daa,
    ddn,
    deepfool,
    ead,
    extreme_weights,
    fab,
    feature_adversary,
    fgm,
    fgm_clipped,
    fmn,
    high_confidence,
    hop_skip_jump,
    jsma,
    lbfgs,
    mim,
    minimum_norm,
    one_pixel,
    pdgd,
    pdpgd,
    pgd,
    sigma_zero,
    simba,
    slide,
    sparsefool,
    superdeepfool,
    transfer,
)

from . import models


def imitate(model, inputs, labels, **options):
    """feature_adversary towards the inverted images."""
    return feature_adversary(model, inputs, labels, guides=1 - inputs, layer=model, **options)


def substitute_network(z: torch.Tensor) -> torch.Tensor:
    """What an attacker knows of the models below: their weights, not their modes nor their precision."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network().eval() if z.shape[1:] == models.SHAPE else nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
        return model.to(z.dtype)(z)


ATTACKS = {
    "fgm": functools.partial(fgm, eps=0.1),
    "pgd": functools.partial(pgd, eps=0.1, steps=5, restarts=2),
    "fgm_clipped": functools.partial(fgm_clipped, eps=0.1),
    "bim": functools.partial(bim, eps=0.1, steps=5),
    "mim": functools.partial(mim, eps=0.1, steps=5),
    "slide": functools.partial(slide, eps=1.0, steps=5, quantile=(0.8, 0.95), restarts=2),
    "daa": functools.partial(daa, eps=0.1, steps=5, particles=3),
    **{f"apgd-{norm}": functools.partial(apgd, norm=norm, eps=0.1, steps=10, restarts=2) for norm in apgd.norms},
    "pdgd": functools.partial(pdgd, steps=60),
    **{f"minimum_norm-{norm}": functools.partial(minimum_norm, norm=norm, budget=60) for norm in models.NORMS},
    "minimum_norm-l1-every-stage": functools.partial(minimum_norm, norm="l1", budget=450),
    **{f"pdpgd-{norm}": functools.partial(pdpgd, norm=norm, steps=60, restarts=2) for norm in models.NORMS},
    "carlini_wagner-l2": functools.partial(carlini_wagner, steps=15, search_steps=3, const=1.0, restarts=2),
    "carlini_wagner-linf": functools.partial(carlini_wagner, norm="linf", steps=15, search_steps=3, restarts=2),
    **{f"deepfool-{norm}": functools.partial(deepfool, norm=norm, steps=20) for norm in deepfool.norms},
    "superdeepfool": functools.partial(superdeepfool, steps=30),
    "sparsefool": functools.partial(sparsefool, steps=40),
    **{f"fab-{norm}": functools.partial(fab, norm=norm, steps=8, restarts=2) for norm in fab.norms},
    "ddn": functools.partial(ddn, steps=30, restarts=2),
    "ead": functools.partial(ead, steps=15, search_steps=3, const=1.0, restarts=2),
    **{f"fmn-{norm}": functools.partial(fmn, norm=norm, steps=30, restarts=2) for norm in models.NORMS},
    **{f"alma-{norm}": functools.partial(alma, norm=norm, steps=30, restarts=2) for norm in alma.norms},
    "lbfgs": functools.partial(lbfgs, steps=10, search_steps=3, restarts=2),
    "high_confidence": functools.partial(high_confidence, steps=20),
    "confident_ascent": functools.partial(confident_ascent, steps=20, step_size=0.05),
    "feature_adversary": functools.partial(imitate, eps=0.1, steps=5),
    "extreme_weights": functools.partial(extreme_weights),
    "hop_skip_jump": functools.partial(hop_skip_jump, steps=2, queries=10),
    "jsma": functools.partial(jsma, gamma=1.0, theta=(1.0, -1.0)),
    "one_pixel": functools.partial(one_pixel, pixels=3, population=20, steps=10),
    "sigma_zero": functools.partial(sigma_zero, steps=40),
    "simba": functools.partial(simba, frequencies=1.0, steps=60),
    "transfer": functools.partial(
        transfer, substitute=substitute_network, attack=functools.partial(pgd, eps=0.5, steps=5)
    ),
}
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(128, 4)
    )


@every_attack
@pytest.mark.parametrize("eval_mode", [True, False])
def test_nothing_is_left_behind(attack, eval_mode):
    model, x = network(), models.inputs()
    model[3].eval()
    labels = model.eval()(x).argmax(1)
    model.train()
    model[3].eval()
    before_x, before_labels = x.clone(), labels.clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = torch.random.get_rng_state()
    attack(model, x, labels, eval_mode=eval_mode)
    assert torch.equal(x, before_x)
    assert torch.equal(labels, before_labels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(p.grad, torch.ones_like(p)) and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert x.grad is None
    assert not x.requires_grad


class Noisy(nn.Module):
    """Draws, and counts its calls, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, z):
        self.calls += 1
        return z + 1e-3 * torch.randn_like(z)


@every_attack
@pytest.mark.parametrize("eval_mode", [True, False])
def test_what_a_model_draws_and_counts_in_evaluation_mode_is_put_back(attack, eval_mode):
    model, x = nn.Sequential(Noisy(), network()).eval(), models.inputs(6)
    labels = model[1](x).argmax(1)
    state = torch.random.get_rng_state()
    attack(model, x, labels, eval_mode=eval_mode)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model[0].calls == 0
    state = torch.random.get_rng_state()
    attack(lambda z: model[1](z + 1e-3 * torch.randn_like(z)), x, labels, eval_mode=eval_mode)
    assert torch.equal(torch.random.get_rng_state(), state)


@every_attack
def test_inputs_at_bounds_that_their_dtype_rounds(attack):
    """−0.4242… and 2.8214… are no float32: the pixels 0 and 1 of normalised images lie beside them."""
    bounds = (-0.1307 / 0.3081, (1 - 0.1307) / 0.3081)
    for dtype in (torch.float32, torch.bfloat16):
        model, x = network().eval().to(dtype), (models.inputs(dtype=dtype) - 0.1307) / 0.3081
        low, high = (torch.tensor(bound, dtype=dtype) for bound in bounds)
        x[..., 0], x[..., 1] = low, high
        adv = attack(model, x, model(x).argmax(1), bounds=bounds)
        assert adv.min() >= low
        assert adv.max() <= high
        if dtype == torch.float32:  # few steps may be too short for 16 bits
            assert not torch.equal(adv, x)


@every_attack
def test_the_mode_of_the_model_is_honoured(attack):
    model, x = network().train(), models.inputs()
    labels = model.eval()(x).argmax(1)
    model.train()
    modes = []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    evaluated, seen = attack(model, x, labels), list(modes)
    assert not any(seen)
    assert not torch.equal(evaluated, attack(model, x, labels, eval_mode=False))
    assert all(modes[len(seen) :])


@pytest.mark.parametrize("name", ["deepfool-l2", "superdeepfool", "sparsefool", "fab-l2", "jsma", "minimum_norm-l2"])
def test_several_gradients_a_step_of_a_compiled_model(name):
    """Its graph is good for one backward pass."""
    model, x = network().eval(), models.inputs()
    labels = model(x).argmax(1)
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(ATTACKS[name](compiled, x, labels), ATTACKS[name](model, x, labels))


@every_attack
def test_the_same_call_gives_the_same_bits(attack):
    model, x = network().eval(), models.inputs()
    labels = model(x).argmax(1)
    assert torch.equal(attack(model, x, labels, seed=3), attack(model, x, labels, seed=3))


@every_attack
def test_gradients_switched_off_by_the_caller_change_nothing(attack):
    model, x = network().eval(), models.inputs(6)
    labels = model(x).argmax(1)
    want = attack(model, x, labels).detach()
    with torch.no_grad():
        assert torch.equal(attack(model, x, labels), want)
        assert not torch.is_grad_enabled()


GRADIENT_FREE = ("hop_skip_jump", "one_pixel", "simba")


@pytest.mark.parametrize("name", ATTACKS)
def test_inference_mode_is_for_attacks_without_gradients(name):
    model, x = network().eval(), models.inputs(6)
    labels = model(x).argmax(1)
    want = ATTACKS[name](model, x, labels).detach()
    with torch.inference_mode():
        if name in GRADIENT_FREE:
            assert torch.equal(ATTACKS[name](model, x, labels), want)
        else:
            with pytest.raises(RuntimeError, match=r"outside torch\.inference_mode"):
                ATTACKS[name](model, x, labels)


@every_attack
def test_inputs_made_in_inference_mode(attack):
    model, x = network().eval(), models.inputs(6)
    labels = model(x).argmax(1)
    with torch.inference_mode():
        made, theirs = x.clone(), labels.clone()
    assert torch.equal(attack(model, made, theirs), attack(model, x, labels))


@pytest.mark.parametrize(
    "name", [name for name in ATTACKS if name not in (*GRADIENT_FREE, "transfer", "feature_adversary")]
)
def test_a_model_without_gradients_is_named(name):
    model, x = network().eval(), models.inputs(6)
    labels = model(x).argmax(1)
    for without in (lambda z: model(z).detach(), lambda z: model(z.detach())):
        with pytest.raises(ValueError, match="model: expected outputs that depend on the inputs differentiably"):
            ATTACKS[name](without, x, labels)


@every_attack
def test_misclassified_samples_come_back_unchanged(attack):
    model, x = network().eval(), models.inputs()
    labels = model(x).argmax(1)
    labels[::2] = (labels[::2] + 1) % 4
    adv = attack(model, x, labels)
    assert torch.equal(adv[::2], x[::2])
    assert not torch.equal(adv[1::2], x[1::2])


@pytest.mark.parametrize("attack", [carlini_wagner, ead])
def test_misclassified_samples_come_back_unchanged_whatever_the_confidence(attack):
    model, x = network().eval(), models.inputs(8)
    labels = (model(x).argmax(1) + 1) % 4
    assert torch.equal(attack(model, x, labels, steps=15, search_steps=2, const=10.0, confidence=3.0), x)


@every_attack
def test_any_input_shape_and_two_classes(attack):
    for shape in ((7,), (2, 5), (2, 3, 4, 2)):
        torch.manual_seed(1)
        x = 0.4 + 0.2 * torch.rand(6, *shape)
        model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 2))
        labels = model(x).argmax(1)
        adv = attack(model, x, labels)
        assert adv.shape == x.shape
        assert adv.isfinite().all()


@every_attack
def test_autocast_models_and_half_inputs(attack):
    model, x = network().eval(), models.inputs()
    labels = model(x).argmax(1)

    def cast(z):
        with torch.autocast("cpu", torch.bfloat16):
            return model(z)

    labels = cast(x).argmax(1)
    adv = attack(cast, x, labels)
    assert adv.dtype == torch.float32
    assert not torch.equal(adv, x)
    half = models.inputs(dtype=torch.bfloat16)
    adv = attack(model.bfloat16(), half, model(half).argmax(1))
    assert adv.dtype == torch.bfloat16
    assert adv.min() >= 0
    assert adv.max() <= 1


MINIMUM_NORM = [name for name in ATTACKS if "eps" not in ATTACKS[name].keywords and "confiden" not in name]


@pytest.mark.parametrize("name", MINIMUM_NORM)
def test_what_autocast_finds_is_judged_in_float32(name):
    model, x = network().eval(), models.inputs()
    labels = model(x).argmax(1)
    with torch.autocast("cpu", torch.bfloat16):
        adv = ATTACKS[name](model, x, labels)
    moved = (adv != x).flatten(1).any(1)
    assert moved.any()
    assert adv.dtype == torch.float32
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert (model(adv).argmax(1) != labels)[moved].all()


def test_minimum_norm_under_autocast_tells_what_it_returns():
    model, x = network().eval(), models.inputs()
    labels = model(x).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    with torch.autocast("cpu", torch.bfloat16):
        info = minimum_norm(model, x, labels, norm="linf", budget=60, return_info=True)
    fooled = model(info.adv).argmax(1) != labels
    assert torch.equal(info.norms.isfinite(), fooled)
    assert torch.equal(info.norms[fooled], (info.adv - x).flatten(1).abs().amax(1).double()[fooled])
    assert torch.equal(info.adv[0], x[0])
    assert info.norms[0] == 0


@every_attack
def test_a_model_that_returns_nan_is_not_reported_as_fooled(attack):
    model, x = network().eval(), models.inputs()
    labels = model(x).argmax(1)
    calls = []

    def broken(z):
        calls.append(1)
        return model(z) * (torch.nan if len(calls) > 1 else 1.0)

    adv = attack(broken, x, labels)
    if attack.func not in (fgm, pgd, fgm_clipped, bim, mim, slide, daa, apgd):  # these return the final point
        assert torch.equal(adv, x)


X, Y = models.inputs(4), torch.zeros(4, dtype=torch.int64)
BAD = {
    "inputs: expected a torch.Tensor": (X.numpy(), Y, {}),
    "inputs: expected a floating dtype": (X.int(), Y, {}),
    "inputs: expected shape": (X.flatten(), Y, {}),
    "inputs: expected a non-empty batch": (X[:0], Y[:0], {}),
    "inputs: expected finite values": (X.masked_fill(X > 0.5, torch.nan), Y, {}),
    "inputs: expected values inside bounds": (X + 1, Y, {}),
    "labels: expected dtype torch.int64": (X, Y.int(), {}),
    "labels: expected shape": (X, Y[:3], {}),
    "labels: expected 0 <= label < 4": (X, Y + 4, {}),
    "labels: expected 0 <= label": (X, Y - 1, {}),
    "bounds: expected finite low < high": (X, Y, {"bounds": (1.0, 0.0)}),
    "bounds: expected a pair": (X, Y, {"bounds": 1.0}),
    "sample_ids: expected": (X, Y, {"sample_ids": Y[:2]}),
}


@every_attack
@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(attack, message):
    inputs, labels, options = BAD[message]
    with pytest.raises((TypeError, ValueError), match=message.replace("(", "\\(")):
        attack(network(), inputs, labels, **options)


@pytest.mark.parametrize("name", [name for name in ATTACKS if not name.startswith("transfer")])
def test_every_attack_takes_its_norms_by_name_and_by_number(name):
    """In one signature: what an attack is named for does not change how it is called."""
    attack, model, x = ATTACKS[name], network().eval(), models.inputs(6)
    function = feature_adversary if name == "feature_adversary" else attack.func
    fixed = "norm" in attack.keywords
    for norm in ("linf", "l2", "l1", "l0"):
        if norm not in getattr(function, "norms", models.NORMS):
            with pytest.raises(ValueError, match="norm: expected one of"):
                attack(model, X, Y, norm=norm)
        elif not fixed or norm == attack.keywords["norm"]:
            labels = model(x).argmax(1)
            number = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}[norm]
            assert torch.equal(attack(model, x, labels, norm=norm), attack(model, x, labels, norm=number))


@every_attack
@pytest.mark.parametrize("seed", [1.5, -1, 2**63, "a", None, True])
def test_a_bad_seed_is_named(attack, seed):
    with pytest.raises(ValueError, match="seed: expected an integer"):
        attack(network(), X, Y, seed=seed)


@every_attack
def test_a_model_without_logits_is_named(attack):
    for output in (lambda z: z, lambda z: z.flatten(1)[:, :1], lambda z: z.sum(), lambda z: z.flatten(1) > 0.5):
        with pytest.raises(ValueError, match="model: expected logits"):
            attack(output, X, Y)
