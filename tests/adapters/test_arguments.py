"""What the adapters accept, refuse and pass on; with stand-ins for libraries that are not installed."""

from __future__ import annotations

import inspect
import pickle
import sys
import types

import pytest
import torch
from oracles import row_norm
from torch import nn

import pyrobust
from pyrobust import adapters
from pyrobust.evaluation.attacks import plan, resolve
from tests.attacks import models


class FakeAutoAttack:
    """AutoAttack's interface, as far as the adapter uses it; moves every value by eps."""

    made: list[FakeAutoAttack]

    def __init__(
        self, model, norm="Linf", eps=0.3, seed=None, verbose=True, attacks_to_run=(), version="standard", device="cuda"
    ):
        self.model, self.norm, self.eps, self.seed, self.verbose = model, norm, eps, seed, verbose
        self.attacks_to_run, self.version, self.device = list(attacks_to_run), version, device
        part = types.SimpleNamespace
        self.apgd = part(n_iter=100, n_restarts=5)
        self.apgd_targeted = part(n_iter=100, n_restarts=1, n_target_classes=9)
        self.fab = part(n_iter=100, n_restarts=5, n_target_classes=9)
        self.square = part(n_queries=5000, n_restarts=1)
        type(self).made.append(self)

    def run_standard_evaluation(self, x, y, bs):
        assert bs == len(x)
        return (x + self.eps).clamp(0, 1)


@pytest.fixture
def autoattack(monkeypatch: pytest.MonkeyPatch) -> list[FakeAutoAttack]:
    module = types.ModuleType("autoattack")
    module.AutoAttack = FakeAutoAttack
    FakeAutoAttack.made = []
    monkeypatch.setitem(sys.modules, "autoattack", module)
    return FakeAutoAttack.made


def test_autoattack_is_told_of_classes_steps_norm_and_seed(autoattack: list[FakeAutoAttack]) -> None:
    model, x, labels = models.two_sided(binding=False)
    adv = adapters.autoattack("apgd-t", n_restarts=2)(model, x, labels, norm="l2", eps=0.01, steps=7, seed=5)
    made = autoattack[-1]
    assert (made.norm, made.eps, made.seed, made.verbose) == ("L2", 0.01, 5, False)
    assert (made.version, made.attacks_to_run, made.device) == ("custom", ["apgd-t"], x.device)
    assert (made.apgd_targeted.n_iter, made.apgd_targeted.n_restarts) == (7, 2)
    assert made.apgd_targeted.n_target_classes == made.fab.n_target_classes == 1  # two classes: one other
    torch.testing.assert_close(adv, x + 0.01, rtol=0, atol=0)
    adapters.autoattack("square")(model, x, labels, norm=float("inf"), eps=0.01, steps=70)
    assert autoattack[-1].square.n_queries == 70
    wide = adapters.autoattack()(lambda z: model(z / 2), 2 * x, labels, norm="linf", eps=0.1, bounds=(0, 2))
    assert (autoattack[-1].version, autoattack[-1].attacks_to_run, autoattack[-1].eps) == ("standard", [], 0.05)
    torch.testing.assert_close(wide, 2 * x + 0.1)


def test_autoattack_takes_no_steps_as_a_whole_and_has_no_targeted_form(autoattack: list[FakeAutoAttack]) -> None:
    whole = adapters.autoattack()
    assert "steps" not in inspect.signature(whole).parameters
    assert "targeted" not in inspect.signature(whole).parameters
    with pytest.raises(ValueError, match="has no n_restarts"):
        adapters.autoattack("standard", n_restarts=2)
    with pytest.raises(ValueError, match="expected one of standard"):
        adapters.autoattack("apgd")


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("foolbox", "LinfPGD"),
        ("torchattacks", "PGD"),
        ("art", "DeepFool"),
        ("autoattack", "standard"),
        ("adv_lib", "ddn"),
    ],
)
def test_a_missing_peer_says_how_to_install_it(library: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"{library}: cannot be imported .*pip install"):
        resolve(f"{library}:{name}")


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("adv_lib", "nothing"),
        ("foolbox", "nothing"),
        ("foolbox", "Attack"),
        ("foolbox", "SpatialAttack"),
        ("torchattacks", "nothing"),
        ("art", "nothing"),
    ],
)
def test_what_is_no_attack_is_refused(library: str, name: str) -> None:
    pytest.importorskip(library)
    with pytest.raises(ValueError, match=library):
        adapters.PEERS[library](name)


def test_options_and_arguments_that_do_not_apply_are_refused() -> None:
    pytest.importorskip("adv_lib")
    model, x, labels = models.two_sided(binding=False)
    with pytest.raises(ValueError, match="adv_lib:ddn has no stepz; it takes"):
        adapters.adv_lib("ddn", stepz=3)
    with pytest.raises(TypeError, match="adv_lib:sigma_zero has no targeted; it takes"):
        adapters.adv_lib("sigma_zero")(model, x, labels, targeted=False)
    with pytest.raises(TypeError, match="sample_ids"):
        adapters.adv_lib("ddn")(model, x, labels, sample_ids=torch.arange(len(x)))
    with pytest.raises(ValueError, match="norm: expected one of l2"):
        adapters.adv_lib("ddn")(model, x, labels, norm="linf")
    with pytest.raises(TypeError, match="norm"):
        adapters.adv_lib("fmn")(model, x, labels)
    with pytest.raises(TypeError, match="eps"):
        adapters.adv_lib("apgd")(model, x, labels, norm="l2")
    with pytest.raises(ValueError, match="eps: expected"):
        adapters.adv_lib("apgd")(model, x, labels, norm="l2", eps=-1)
    with pytest.raises(ValueError, match="steps: expected"):
        adapters.adv_lib("ddn")(model, x, labels, steps=0)
    with pytest.raises(ValueError, match="inputs: expected values inside"):
        adapters.adv_lib("ddn")(model, x + 2, labels)


def test_steps_have_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("adv_lib")
    from pyrobust.adapters.adv_lib import import_adv_lib

    seen = []
    module = import_adv_lib()

    def pdpgd(model, inputs, labels, norm, targeted=False, num_steps=500):
        seen.append((norm, num_steps, targeted))
        return inputs

    monkeypatch.setattr(module, "pdpgd", pdpgd)
    model, x, labels = models.two_sided(binding=False)
    adapters.adv_lib("pdpgd", steps=9)(model, x, labels, norm="l0")
    adapters.adv_lib("pdpgd", num_steps=8)(model, x, labels, norm="linf", targeted=True)
    adapters.adv_lib("pdpgd", steps=9)(model, x, labels, norm=2, steps=7)
    assert seen == [(0.0, 9, False), (float("inf"), 8, True), (2.0, 7, False)]


def test_the_evaluation_finds_peers_by_name() -> None:
    pytest.importorskip("adv_lib")
    found = resolve("adv_lib:ddn")
    assert (found.name, found.norms, found.is_budget) == ("adv_lib:ddn", ("l2",), False)
    assert found.reference.startswith("adv_lib 0.")
    assert resolve(adapters.adv_lib("ddn", levels=None)).name == "adv_lib:ddn(levels=None)"
    assert resolve("adv_lib:apgd").is_budget
    with pytest.raises(ValueError, match="no targeted form"):
        plan(["l0"], "adv_lib:sigma_zero", {}, None, True)
    with pytest.raises(ValueError, match="an attack in l2, not in linf"):
        plan(["linf"], "adv_lib:ddn", {}, None, False)
    with pytest.raises(ValueError, match="needs eps"):
        plan(["linf"], "adv_lib:apgd", {}, None, False)


def test_an_evaluation_runs_peers_beside_ours() -> None:
    pytest.importorskip("adv_lib")
    model, x, labels = models.two_sided(binding=False)
    report = pyrobust.evaluate(model, (x, labels), norms="l2", attacks=["pdgd", "adv_lib:ddn"], steps=60)
    distances = {outcome.attack: torch.from_numpy(outcome.distances) for outcome in report.of("l2")}
    assert distances.keys() >= {"pdgd", "adv_lib:ddn"}
    alone = adapters.adv_lib("ddn", steps=60)(model, x, labels)
    # The evaluation pads the batch, which may change the last bits of the model's logits.
    torch.testing.assert_close(distances["adv_lib:ddn"], row_norm(alone.double() - x.double(), "l2"), rtol=1e-4, atol=0)


def test_an_adapter_can_be_sent_to_another_process() -> None:
    pytest.importorskip("adv_lib")
    attack = adapters.adv_lib("ddn", steps=20)
    model, x, labels = models.two_sided(binding=False)
    sent = pickle.loads(pickle.dumps(attack))
    assert sent.reference == attack.reference
    assert torch.equal(sent(model, x, labels), attack(model, x, labels))


def snippets() -> list[str]:
    """The indented code blocks of the package's docstring."""
    blocks, lines = [], []
    for line in [*adapters.__doc__.splitlines(), "end"]:
        if line.startswith("    ") or not line.strip():
            lines.append(line[4:])
        else:
            blocks.append("\n".join(lines).strip())
            lines = []
    return [block for block in blocks if block]


def test_the_snippets_for_other_benchmarks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    _, attackbench_code, robustbench_code = snippets()
    model, x, labels = models.two_sided(binding=False)
    calls = []

    def run_attack(model, loader, attack, threat_model):
        for norm in ("linf", "l2", "l1", "l0"):  # as AttackBench calls: keywords of its own, targets apart
            adv = attack(
                model=model, inputs=x, labels=labels, targeted=False, targets=None, threat_model=norm, norm=norm
            )
            calls.append((norm, bool((model(adv).argmax(1) != labels).all())))

    bench = types.SimpleNamespace(get_model=lambda name: model, get_loader=lambda *_, **__: None, run_attack=run_attack)
    monkeypatch.setitem(sys.modules, "attackbench", bench)
    exec(attackbench_code, {})
    assert calls == [(norm, True) for norm in ("linf", "l2", "l1", "l0")]

    parts = {
        "robustbench": types.ModuleType("robustbench"),
        "robustbench.data": types.SimpleNamespace(load_cifar10=lambda n_examples: (x, labels)),
        "robustbench.utils": types.SimpleNamespace(load_model=lambda *_, **__: nn.Sequential(model)),
    }
    for name, module in parts.items():
        monkeypatch.setitem(sys.modules, name, module)
    space: dict = {}
    exec(robustbench_code, space)
    assert (space["report"].of("linf")[0].distances < float("inf")).all()
