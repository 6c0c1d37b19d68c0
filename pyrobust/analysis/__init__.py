"""What a classifier's robustness rests on: linear geometry, Jacobian spectra, local linearity, activations, pictures."""

from pyrobust.analysis.activations import CellSizes, SharedActivations, cell_sizes, shared_activations
from pyrobust.analysis.alignment import Alignment, alignment, reinitialised
from pyrobust.analysis.calibration import Calibration, Reliability, calibration, nll_temperature, reliability
from pyrobust.analysis.distributions import RobustnessDistribution, plot_densities, robustness_distribution
from pyrobust.analysis.filters import Filters, LayerFilters, filters
from pyrobust.analysis.fooling import FoolingCurve, fooling_curve, fooling_images, plot_fooling_curves
from pyrobust.analysis.geometry import (
    adversarial_distance,
    empirical_risk,
    error_distance,
    margin_distances,
    raw_score,
    scaled_loss,
    signed_distance,
)
from pyrobust.analysis.jacobian import jacobian, layer_outputs
from pyrobust.analysis.layer_norms import LayerNorm, LipschitzUpper, lipschitz_upper
from pyrobust.analysis.linear import (
    NearestPoint,
    mirror_image,
    nearest_adversarial,
    nearest_in_half_space,
    projected_image,
)
from pyrobust.analysis.linear_robustness import ExtremePixels, LinearRobustness, extreme_pixels, linear_robustness
from pyrobust.analysis.linearity import LocalLinearity, adversarial_directions, local_linearity, random_directions
from pyrobust.analysis.lipschitz import LipschitzBounds, LipschitzLower, lipschitz_bounds, lipschitz_lower
from pyrobust.analysis.local import LayerWeights, LocalClassifier, layer_weights, local_classifier
from pyrobust.analysis.logistic import WeightImages, fast_gradient_points, weight_images
from pyrobust.analysis.logistic_models import LOGISTIC_VARIANTS, LogisticVariant, logistic_model, logistic_setup
from pyrobust.analysis.loss_translation import LossTranslation, loss_translation
from pyrobust.analysis.operator_norms import OperatorNorms, is_exact, operator_norm, operator_norms
from pyrobust.analysis.recognition import Recognised, recognised
from pyrobust.analysis.saliency import Saliency, saliency
from pyrobust.analysis.spectrum import JacobianSpectrum, jacobian_spectrum
from pyrobust.analysis.sweep import Sweep, regularisation_sweep
from pyrobust.analysis.sweep_view import SweepView
from pyrobust.analysis.temperature import softmax_temperature
from pyrobust.analysis.tilting import TiltingPlane, nearest_centroid, tilting_angle, tilting_plane
from pyrobust.analysis.toy import TiltedBoundaries, ToyProblem, tilted_boundaries, toy_images, toy_problem
from pyrobust.analysis.toy_boundaries import ToyBoundaries, toy_boundaries
from pyrobust.analysis.transfer import TransferMatrix, transfer_matrix
from pyrobust.analysis.visualise import PreferredInputs, activation_maximisation

__all__ = [
    "LOGISTIC_VARIANTS",
    "Alignment",
    "Calibration",
    "CellSizes",
    "ExtremePixels",
    "Filters",
    "FoolingCurve",
    "JacobianSpectrum",
    "LayerFilters",
    "LayerNorm",
    "LayerWeights",
    "LinearRobustness",
    "LipschitzBounds",
    "LipschitzLower",
    "LipschitzUpper",
    "LocalClassifier",
    "LocalLinearity",
    "LogisticVariant",
    "LossTranslation",
    "NearestPoint",
    "OperatorNorms",
    "PreferredInputs",
    "Recognised",
    "Reliability",
    "RobustnessDistribution",
    "Saliency",
    "SharedActivations",
    "Sweep",
    "SweepView",
    "TiltedBoundaries",
    "TiltingPlane",
    "ToyBoundaries",
    "ToyProblem",
    "TransferMatrix",
    "WeightImages",
    "activation_maximisation",
    "adversarial_directions",
    "adversarial_distance",
    "alignment",
    "calibration",
    "cell_sizes",
    "empirical_risk",
    "error_distance",
    "extreme_pixels",
    "fast_gradient_points",
    "filters",
    "fooling_curve",
    "fooling_images",
    "is_exact",
    "jacobian",
    "jacobian_spectrum",
    "layer_outputs",
    "layer_weights",
    "linear_robustness",
    "lipschitz_bounds",
    "lipschitz_lower",
    "lipschitz_upper",
    "local_classifier",
    "local_linearity",
    "logistic_model",
    "logistic_setup",
    "loss_translation",
    "margin_distances",
    "mirror_image",
    "nearest_adversarial",
    "nearest_centroid",
    "nearest_in_half_space",
    "nll_temperature",
    "operator_norm",
    "operator_norms",
    "plot_densities",
    "plot_fooling_curves",
    "projected_image",
    "random_directions",
    "raw_score",
    "recognised",
    "regularisation_sweep",
    "reinitialised",
    "reliability",
    "robustness_distribution",
    "saliency",
    "scaled_loss",
    "shared_activations",
    "signed_distance",
    "softmax_temperature",
    "tilted_boundaries",
    "tilting_angle",
    "tilting_plane",
    "toy_boundaries",
    "toy_images",
    "toy_problem",
    "transfer_matrix",
    "weight_images",
]
