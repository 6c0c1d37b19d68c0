"""Measure robustness: run attacks, verify what they return, survive being killed, and write a report."""

try:
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401
    import pyarrow  # noqa: F401
except ImportError as error:
    raise ImportError(f"pyrobust.evaluation needs {error.name}: pip install 'pyrobust[report]'") from error

from pyrobust._progress import Progress
from pyrobust.evaluation.compare import Comparison, compare_runs
from pyrobust.evaluation.micro import AttackError
from pyrobust.evaluation.results import Report
from pyrobust.evaluation.runner import evaluate
from pyrobust.evaluation.store import RunError

__all__ = ["AttackError", "Comparison", "Progress", "Report", "RunError", "compare_runs", "evaluate"]
