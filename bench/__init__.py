"""Benchmarks: ``python -m bench kernels`` and ``python -m bench attacks``, from the repository root."""
