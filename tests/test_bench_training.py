"""The benchmark of training runs at a tiny size, and replays the passes that it has counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.training import entries, step_of
from bench.training_passes import Pass, Pulled, Recorded, bare_step
from pyrobust.training import AdversarialTraining, CrossEntropy, InputGradient, Objective, OperatorNorm
from tests.test_bench import positive, run


def test_training(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    content = run(tmp_path, "training", "--rounds", "1")
    ours = {row["objective"]: row for row in content["rows"] if not row["peer"]}
    assert ours.keys() == {entry.name for entry in entries()}
    for row in content["rows"]:
        if row["peer"]:
            assert row.get("note") or positive(row["ms"], row["over_ours"])
        else:
            assert positive(row["ms"], row["bare_ms"], row["over_bare"], row["over_bare_median"]), row
            assert row["forwards"] >= 1
            assert row["backwards"] >= 1
    barred = [row for row in content["rows"] if row.get("barred")]
    assert {row["objective"].partition(",")[0] for row in barred} == {"adversarial", "trades", "vat", "d.d. SNR"}
    assert len(content["bars"]) == len(barred) + 1
    assert all(positive(row["ms"], row["over_standard"]) for row in content["spectral_norms"])
    assert content["art"]


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (
            Objective(at=AdversarialTraining(0.1, steps=2)),
            [*[Pass(False, True, True, False, False, [Pulled(False)])] * 2, Pass(True, True, False, False, True)],
        ),
        (
            Objective(ce=CrossEntropy(), norm=OperatorNorm(steps=1)),
            [
                Pass(False, True, True, False, False, [Pulled(False)] * 2),
                Pass(False, False, False, True),
                Pass(True, True, True, False, True, [Pulled(True, True)]),
            ],
        ),
        (Objective(norm=InputGradient()), [Pass(True, True, True, False, True, [Pulled(True, True)])]),
    ],
    ids=["adversarial", "operator norm", "input gradient"],
)
def test_the_bare_step_makes_the_passes_of_the_step(objective: Objective, expected: list[Pass]) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).train()
    inputs, labels = torch.rand(6, 4), torch.arange(6) % 3
    if "ce" in objective.terms:  # the clean logits come first, and are those of the step's last pass
        expected = [expected[2], *expected[:2]]
    recorded = Recorded(model).train()
    step_of(recorded, objective, inputs, labels)()
    assert recorded.passes == expected

    replayed = Recorded(model).train()
    bare_step(replayed, inputs, recorded.passes)()
    made = replayed.passes[1:]  # the first asks for the number of classes
    assert len(made) == len(expected)
    for own, theirs in zip(made, expected, strict=True):
        assert (own.training, own.graph, own.tracked, own.dual) == (
            theirs.training,
            theirs.graph,
            theirs.tracked,
            theirs.dual,
        )
        # Then comes the last backward pass, which reaches the inputs too.
        assert [p.graph for p in own.pulled[: len(theirs.pulled)]] == [p.graph for p in theirs.pulled]
    assert all(parameter.grad is None for parameter in model.parameters())
