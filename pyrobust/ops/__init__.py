"""Native operations on rows: projections, proximal operators, dual directions, norms, power iteration, fused attack
steps."""

from pyrobust.ops._native import native_info as native_info
from pyrobust.ops.attack_steps import *  # noqa: F403
from pyrobust.ops.norms import *  # noqa: F403
from pyrobust.ops.power import *  # noqa: F403
from pyrobust.ops.projections import *  # noqa: F403
from pyrobust.ops.proximal import *  # noqa: F403
from pyrobust.ops.sampling import *  # noqa: F403
from pyrobust.ops.sparse_steps import *  # noqa: F403
from pyrobust.ops.spectral import *  # noqa: F403
from pyrobust.ops.total_variation import *  # noqa: F403
