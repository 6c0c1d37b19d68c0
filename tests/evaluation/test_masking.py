from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pyrobust.evaluation import Progress, evaluate
from pyrobust.evaluation.masking import leads, searches
from pyrobust.evaluation.outcomes import Outcome

from . import toy_attacks
from .conftest import Halves
from .test_runner import exact

INF = math.inf


def test_each_norm_has_searches_and_none_runs_twice() -> None:
    assert [(t.norm, t.attack.name) for t in searches(["linf", "l2", "l1", "l0"])] == [
        ("linf", "hop_skip_jump"),
        ("linf", "simba"),
        ("l2", "hop_skip_jump"),
        ("l2", "simba"),
        ("l0", "one_pixel"),
    ]
    assert [t.norm for t in searches(["l0"])] == ["l2", "l0"]
    led = [t for t in searches(["linf", "l2", "l1"], Halves()) if t.attack.name == "transfer"]
    assert [t.norm for t in led] == ["linf", "l2"]
    assert len({t.attack.reference for t in led}) == 2
    other = Halves()
    other.register_buffer("more", torch.ones(1))
    assert searches(["linf"], other)[-1].attack.reference != led[0].attack.reference


def test_what_a_run_asks_of_its_attacks_is_not_for_the_searches() -> None:
    for task in searches(["linf", "l2", "l0"]):
        assert not task.attack.takes("steps")
        assert task.attack.takes("seed")


def rows(norm: str, distances: list[float]) -> pa.Table:
    """A search's verified rows, as far as they are read."""
    return pa.table({"adversarial": [math.isfinite(d) for d in distances], norm: distances})


def outcome(distances: list[float], budgets: tuple[float, ...] = (), attack: str = "white") -> Outcome:
    return Outcome("l2", attack, budgets, np.array(distances) > 0, np.array(distances))


def test_a_lead_counts_where_every_attack_is_behind_by_more_than_a_percent() -> None:
    # Behind by half; by half of a percent; ahead; found nothing; misclassified as it is; and beyond what was checked.
    white = outcome([1.0, 1.0, 1.0, INF, 0.0, INF])
    strong = outcome([2.0, 2.0, 0.1, INF, 0.0, INF], attack="strong")
    first, second = searches(["l2"])
    checked = [(first, rows("l2", [0.5, 0.995, 2.0, 3.0, 0.1])), (second, rows("l2", [0.8, INF, INF, INF, INF]))]
    (lead,) = leads(checked, [white, strong])
    assert (lead.norm, lead.samples, lead.ahead, lead.unbroken) == ("l2", 4, [0, 3], 1)
    assert lead.gain == pytest.approx(0.5)
    assert lead.attacks == ["white", "strong"]
    assert lead.searches == ["l2 · hop_skip_jump", "l2 · simba"]
    assert lead.warning().startswith(
        "l2: on 2 of 4 correct samples, attacks without gradients (l2 · hop_skip_jump, l2 ·"
    )
    assert "than white, strong: by 50 % in the median; on 1 of them nothing else was found." in lead.warning()


def test_where_nothing_else_was_found_there_is_no_share_to_tell() -> None:
    (lead,) = leads([(searches(["l2"])[1], rows("l2", [3.0]))], [outcome([INF])])
    assert (lead.unbroken, lead.gain) == (1, None)
    assert "than white: on 1 of them nothing else was found." in lead.warning()


def test_a_sweep_is_behind_only_at_budgets_that_were_swept() -> None:
    # Broken at 0.2: a point at 0.15 would be within no smaller budget, one at 0.1 is. Not broken at all: within 0.2 or not.
    swept = outcome([0.2, 0.2, INF, INF], budgets=(0.1, 0.2))
    (lead,) = leads([(searches(["l2"])[0], rows("l2", [0.15, 0.1, 0.19, 0.21]))], [swept])
    assert lead.ahead == [1, 2]
    assert lead.unbroken == 1
    assert lead.gain == pytest.approx(0.5)


class Stairs(Halves):
    """Nearly the same decisions, from logits that are flat almost everywhere."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).mul(50).round()


def test_points_of_a_substitute_find_masked_gradients_out(points: tuple) -> None:
    report = evaluate(
        Stairs().eval(), points, norms=["linf"], attacks=toy_attacks.walk, batch_size=8, check_masking=7,
        substitute=Halves().eval(),
    )  # fmt: skip
    (warning,) = [text for text in report.warnings if "attacks without gradients" in text]
    assert "linf · transfer" in warning
    figures = report.summary()["masking_check"]["linf"]
    assert "linf · transfer" in figures["searches"]
    assert figures["unbroken"] == figures["samples"] > 0


def test_a_substitute_needs_the_check(halves: Halves, points: tuple) -> None:
    for arguments in ({"substitute": halves}, {"substitute": "halves", "check_masking": 4}):
        with pytest.raises(ValueError, match="substitute: expected a model, together with check_masking"):
            evaluate(halves, points, norms="linf", attacks=exact, **arguments)


def test_masked_gradients_are_found_out(points: tuple) -> None:
    report = evaluate(
        Stairs().eval(), points, norms=["linf", "l1"], attacks=toy_attacks.walk, batch_size=8, check_masking=7
    )
    assert np.isinf(report.outcomes[0].distances[:7]).all()  # no gradient tells the walk where to go
    # Nothing searches in l1, but what is found in l2 is nearer than nothing.
    for lead in report.leads:
        assert (lead.samples, lead.ahead, lead.unbroken) == (7, list(range(7)), 7)
        assert lead.warning() in report.warnings


def test_nothing_is_ahead_of_the_smallest_perturbation(halves: Halves, points: tuple, tmp_path: Path) -> None:
    report = evaluate(halves, points, norms="linf", attacks=exact, batch_size=4, check_masking=64)
    (lead,) = report.leads
    assert (lead.samples, lead.ahead) == (9, [])  # all that there are
    assert report.warnings == []
    page = report.save(tmp_path).read_text()
    assert "On the first 10 samples, attacks without gradients did no better." in page
    assert "on the first 10 samples: linf · hop_skip_jump(steps=16)" in page


def test_without_the_check_nothing_is_told_of_it(halves: Halves, points: tuple, tmp_path: Path) -> None:
    report = evaluate(halves, points, norms="linf", attacks=exact, batch_size=4)
    assert report.leads == []
    assert report.summary()["masking_check"] is None
    assert "attacks without gradients did" not in report.save(tmp_path).read_text()


def test_the_check_is_repeatable_and_resumes_to_the_same_bytes(halves: Halves, points: tuple, tmp_path: Path) -> None:
    def run(folder: Path) -> Progress:
        seen: list[Progress] = []
        evaluate(
            halves, points, norms="l2", attacks=toy_attacks.walk, batch_size=4, check_masking=7, out=folder, resume=True,
            progress=seen.append,
        )  # fmt: skip
        return seen[-1]

    end = run(tmp_path / "one")
    assert end.done == end.total == 10 + 10 + 2 * 7  # clean predictions, the walk, and two searches
    run(tmp_path / "two")
    names = ("results.parquet", "summary.json", "curves.png")
    expected = {name: (tmp_path / "one" / name).read_bytes() for name in names}
    assert json.loads(expected["summary.json"])["masking_check"]["l2"]["samples"] == 7
    assert all((tmp_path / "two" / name).read_bytes() == expected[name] for name in names)
    lost = tmp_path / "two" / "batches" / "002" / "000001.parquet"  # the last three samples of the first search
    before = pq.read_table(lost)
    lost.unlink()
    assert run(tmp_path / "two").resumed == end.total - 3
    assert pq.read_table(lost).equals(before)
    assert all((tmp_path / "two" / name).read_bytes() == expected[name] for name in names)
