"""Tests of the evaluation, the models and the loaders."""
