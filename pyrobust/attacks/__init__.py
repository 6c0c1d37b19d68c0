"""Adversarial attacks: pure functions attack(model, inputs, labels, *, …) -> adversarial inputs."""

from pyrobust.attacks.alma import alma
from pyrobust.attacks.apgd import apgd
from pyrobust.attacks.bim import bim
from pyrobust.attacks.carlini_wagner import carlini_wagner
from pyrobust.attacks.confident_ascent import confident_ascent
from pyrobust.attacks.daa import daa
from pyrobust.attacks.ddn import ddn
from pyrobust.attacks.deepfool import deepfool
from pyrobust.attacks.ead import ead
from pyrobust.attacks.extreme_weights import extreme_weights
from pyrobust.attacks.fab import fab
from pyrobust.attacks.feature_adversary import feature_adversary
from pyrobust.attacks.fgm import fgm
from pyrobust.attacks.fgm_clipped import fgm_clipped
from pyrobust.attacks.fmn import fmn
from pyrobust.attacks.high_confidence import high_confidence
from pyrobust.attacks.hop_skip_jump import hop_skip_jump
from pyrobust.attacks.jsma import jsma
from pyrobust.attacks.lbfgs import lbfgs
from pyrobust.attacks.mim import mim
from pyrobust.attacks.minimum_norm import MinimumNorms, minimum_norm
from pyrobust.attacks.one_pixel import one_pixel
from pyrobust.attacks.pdgd import pdgd
from pyrobust.attacks.pdpgd import pdpgd
from pyrobust.attacks.pgd import pgd
from pyrobust.attacks.pixel_swap import pixel_swap
from pyrobust.attacks.sigma_zero import sigma_zero
from pyrobust.attacks.simba import simba
from pyrobust.attacks.slide import slide
from pyrobust.attacks.sparsefool import sparsefool
from pyrobust.attacks.superdeepfool import superdeepfool
from pyrobust.attacks.transfer import transfer

__all__ = [
    "MinimumNorms",
    "alma",
    "apgd",
    "bim",
    "carlini_wagner",
    "confident_ascent",
    "daa",
    "ddn",
    "deepfool",
    "ead",
    "extreme_weights",
    "fab",
    "feature_adversary",
    "fgm",
    "fgm_clipped",
    "fmn",
    "high_confidence",
    "hop_skip_jump",
    "jsma",
    "lbfgs",
    "mim",
    "minimum_norm",
    "one_pixel",
    "pdgd",
    "pdpgd",
    "pgd",
    "pixel_swap",
    "sigma_zero",
    "simba",
    "slide",
    "sparsefool",
    "superdeepfool",
    "transfer",
]
