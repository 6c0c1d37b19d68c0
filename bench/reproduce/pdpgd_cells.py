"""What was measured, kept in bench/.cache a cell (a network, an attack, the images) at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

from torch import nn

from bench.environment import describe, processor
from bench.networks import CACHE
from bench.reproduce.pdpgd_attacks import Images

FOLDER = CACHE / "pdpgd-tables"


def cell(
    made_from: dict[str, Any], model: nn.Module, images: Images, measured: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The result of ``measured``, from the cache where the same was measured before: an interrupted run goes on.

    The same is: the attack, weights and images, versions and processor. The commit may differ, and is kept with the result.
    """
    device = images.inputs.device
    origin = describe(device, {})
    weights = hashlib.sha256()
    for tensor in (*model.state_dict().values(), images.inputs, images.labels):
        weights.update(tensor.cpu().contiguous().numpy().tobytes())
    key = {**made_from, "versions": origin["versions"], "processor": processor(device), "on": weights.hexdigest()}
    path = FOLDER / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if path.is_file():
        return json.loads(path.read_text())
    result = {**measured(), "commit": origin["commit"]}
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result))  # json writes and reads inf, which failed attacks have
    os.replace(partial, path)  # never half a file, whenever it is interrupted
    return result
