"""adv-lib's primal-dual attacks, or why they are not here."""

from __future__ import annotations

import importlib
from types import ModuleType

from pyrobust.adapters.adv_lib import import_adv_lib


def adv_lib() -> tuple[ModuleType | None, str]:
    """adv-lib's module of PDGD and PDPGD, or None and why not."""
    try:
        import_adv_lib()
        return importlib.import_module("adv_lib.attacks.primal_dual_gradient_descent"), ""
    except Exception as error:  # a peer may fail in any way; the benchmark goes on without it
        return None, f"{type(error).__name__}: {error}"
