"""What a classifier's robustness rests on: linear geometry in closed form, fooling images, confidence scales."""

from pyrobust.analysis.fooling import FoolingCurve, fooling_curve, fooling_images
from pyrobust.analysis.linear import (
    NearestPoint,
    mirror_image,
    nearest_adversarial,
    nearest_in_half_space,
    projected_image,
)
from pyrobust.analysis.temperature import softmax_temperature

__all__ = [
    "FoolingCurve",
    "NearestPoint",
    "fooling_curve",
    "fooling_images",
    "mirror_image",
    "nearest_adversarial",
    "nearest_in_half_space",
    "projected_image",
    "softmax_temperature",
]
