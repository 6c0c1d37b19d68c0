"""Train robust classifiers: objectives as weighted sums of terms, and the loop that minimises them.

    objective = Objective(ce=CrossEntropy(), sensitivity=(0.1, MarginSensitivity(norm="l2")))
    history = train(model, objective, data, Recipe(epochs=30, validation=Validation(eps=0.1)), out="runs/mine")

A term is a loss or a penalty of a model on a batch (`Term`); one of one's own is a class with a ``forward``.
"""

from pyrobust.training.adversarial import AdversarialTraining
from pyrobust.training.bang import Bang
from pyrobust.training.catalogue import OBJECTIVES, make_objective
from pyrobust.training.contractive import ContractiveAutoencoder, contractive_autoencoder
from pyrobust.training.critic import AdversaryCritic
from pyrobust.training.critic_network import critic_mlp
from pyrobust.training.cross_entropy import CrossEntropy
from pyrobust.training.decay import L1Decay, L2Decay
from pyrobust.training.descent import make_optimizer, make_schedule
from pyrobust.training.distributed import process_group
from pyrobust.training.disturb_label import DisturbLabel
from pyrobust.training.input_gradient import InputGradient
from pyrobust.training.interpolation import interpolation
from pyrobust.training.jacobian import JacobianFrobenius
from pyrobust.training.linear import LinearWorstCase
from pyrobust.training.logit_distance import LogitDistance
from pyrobust.training.logit_pairing import AdversarialLogitPairing, CleanLogitPairing, LogitSqueezing
from pyrobust.training.logs import DivergedError, History
from pyrobust.training.margin import Hinge, MarginSensitivity
from pyrobust.training.operator_norm import OperatorNorm
from pyrobust.training.recipe import Recipe
from pyrobust.training.robust_optimisation import RobustOptimisation
from pyrobust.training.smoothing import ConfidencePenalty, LabelSmoothing
from pyrobust.training.spectral_norm import SpectralNorm
from pyrobust.training.tangent import Tangent, local_pca_tangents
from pyrobust.training.term import Batch, Objective, Term
from pyrobust.training.trades import Trades
from pyrobust.training.trainer import train
from pyrobust.training.validation import Validation, accuracies
from pyrobust.training.vat import VirtualAdversarial

__all__ = [
    "OBJECTIVES",
    "AdversarialLogitPairing",
    "AdversarialTraining",
    "AdversaryCritic",
    "Bang",
    "Batch",
    "CleanLogitPairing",
    "ConfidencePenalty",
    "ContractiveAutoencoder",
    "CrossEntropy",
    "DisturbLabel",
    "DivergedError",
    "Hinge",
    "History",
    "InputGradient",
    "JacobianFrobenius",
    "L1Decay",
    "L2Decay",
    "LabelSmoothing",
    "LinearWorstCase",
    "LogitDistance",
    "LogitSqueezing",
    "MarginSensitivity",
    "Objective",
    "OperatorNorm",
    "Recipe",
    "RobustOptimisation",
    "SpectralNorm",
    "Tangent",
    "Term",
    "Trades",
    "Validation",
    "VirtualAdversarial",
    "accuracies",
    "contractive_autoencoder",
    "critic_mlp",
    "interpolation",
    "local_pca_tangents",
    "make_objective",
    "make_optimizer",
    "make_schedule",
    "process_group",
    "train",
]
