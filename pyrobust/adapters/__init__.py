"""Other libraries' attacks behind the signature of ours, and ours inside other people's benchmarks.

Each adapter takes the peer's name of an attack and the peer's own options, and returns a function
``attack(model, inputs, labels, *, norm, …)`` that runs wherever one of `pyrobust.attacks` does::

    from pyrobust import adapters, evaluate

    cw = adapters.foolbox("L2CarliniWagnerAttack", binary_search_steps=5)
    adv = cw(model, inputs, labels, steps=1000)
    evaluate(model, "cifar10", norms="l2", attacks=["pdgd", cw, "adv_lib:ddn", "art:ElasticNet"])

In `pyrobust.evaluate` and on the command line a name such as ``adv_lib:ddn``, ``foolbox:L0BrendelBethgeAttack``,
``torchattacks:JSMA``, ``art:SaliencyMapMethod`` or ``autoattack:apgd-ce`` is enough.

What carries over: the norm; ``eps`` of budget attacks; ``steps``, by whatever name; ``targeted`` where the peer has a form
that works; any ``bounds`` and floating dtype (the peer sees float32 in [0, 1]); the model's mode, gradients and the global
random state are left as found, and ``seed`` fixes what the peer draws, batch by batch. What does not is not in the
signature: ``callback``, ``sample_ids``.

The other direction. AttackBench calls an attack with its own arguments, and counts queries itself::

    import attackbench
    from pyrobust.attacks import pdpgd

    def attack(model, inputs, labels, targets=None, targeted=False, threat_model="l2", **_):
        goals = targets if targeted else labels
        grouping = {"grouping": "value"} if threat_model == "l0" else {}  # AttackBench counts values
        return pdpgd(model, inputs, goals, norm=threat_model, targeted=targeted, **grouping)

    model = attackbench.get_model("carmon_2019")
    results = attackbench.run_attack(model, attackbench.get_loader("cifar10", num_samples=1000), attack, "l2")

RobustBench's ``benchmark`` runs AutoAttack alone; its models and data go into our evaluator::

    from pyrobust import evaluate
    from robustbench.data import load_cifar10
    from robustbench.utils import load_model

    model = load_model("Carmon2019Unlabeled", dataset="cifar10", threat_model="Linf")
    report = evaluate(model, load_cifar10(n_examples=1000), norms="linf", eps=[8 / 255])
"""

from __future__ import annotations

from pyrobust.adapters._peer import PeerAttack
from pyrobust.adapters.adv_lib import adv_lib
from pyrobust.adapters.art import art
from pyrobust.adapters.autoattack import autoattack
from pyrobust.adapters.foolbox import foolbox
from pyrobust.adapters.torchattacks import torchattacks

PEERS = {f.__name__: f for f in (adv_lib, art, autoattack, foolbox, torchattacks)}

__all__ = ["PEERS", "PeerAttack", "adv_lib", "art", "autoattack", "foolbox", "torchattacks"]
