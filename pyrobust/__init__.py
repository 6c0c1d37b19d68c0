"""Measure and improve the adversarial robustness of PyTorch classifiers."""

from importlib.metadata import version

__version__ = version("pyrobust")
