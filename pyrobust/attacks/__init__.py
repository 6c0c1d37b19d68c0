"""Adversarial attacks: pure functions attack(model, inputs, labels, *, …) -> adversarial inputs."""

from pyrobust.attacks.fgm import fgm
from pyrobust.attacks.pdgd import pdgd
from pyrobust.attacks.pdpgd import pdpgd
from pyrobust.attacks.pgd import pgd

__all__ = ["fgm", "pdgd", "pdpgd", "pgd"]
