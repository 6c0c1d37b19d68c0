"""Parts of long computations: kept, not computed again, the same bits."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from processes import die_at_call, start
from torch import Tensor

import pyrobust._files as files_module
from pyrobust.analysis.work import PARTS, Work, joined, slug


def chunks() -> tuple[Tensor, ...]:
    return torch.arange(10).split(4)


def roots(ids: Tensor) -> dict[str, Tensor]:
    return {"root": ids.double().sqrt(), "pair": torch.stack([ids, ids + 1], 1)}


def test_parts_come_in_order_and_join() -> None:
    results = Work().map("roots", chunks(), roots)
    assert [len(r["root"]) for r in results] == [4, 4, 2]
    whole = joined(results)
    assert torch.equal(whole["root"], torch.arange(10).double().sqrt())
    assert whole["pair"].shape == (10, 2)


def test_a_finished_part_is_read_instead_of_computed(tmp_path: Path) -> None:
    first = Work(tmp_path).map("roots", chunks(), roots)
    kept = sorted((tmp_path / PARTS / "roots").iterdir())
    kept[1].unlink()
    called, told = [], []

    def counted(ids: Tensor) -> dict[str, Tensor]:
        called.append(ids.tolist())
        return roots(ids)

    again = Work(tmp_path, told.append).map("roots", chunks(), counted)
    assert called == [[4, 5, 6, 7]]
    assert all(torch.equal(a[k], b[k]) for a, b in zip(first, again, strict=True) for k in a)
    assert [(p.done, p.resumed, p.total) for p in told] == [(0, 0, 10), (4, 4, 10), (8, 4, 10), (10, 6, 10)]


def test_a_part_is_as_large_as_its_tensors(tmp_path: Path) -> None:
    storage = torch.zeros(1_000_000)
    Work(tmp_path).map("view", [0], lambda part: {"view": storage[:1]}, size=lambda part: 1)
    (path,) = (tmp_path / PARTS / "view").iterdir()
    assert path.stat().st_size < 10_000


def test_infinities_and_integers_survive(tmp_path: Path) -> None:
    values = {"x": torch.tensor([math.inf, -math.inf, 0.1], dtype=torch.float64), "n": torch.tensor([2**62])}
    for _ in range(2):
        (result,) = Work(tmp_path).map("values", [values], lambda part: part)
        assert all(torch.equal(result[k], values[k]) and result[k].dtype == values[k].dtype for k in values)


def test_each_name_once() -> None:
    work = Work()
    work.map("a", chunks(), roots)
    with pytest.raises(ValueError, match="name: 'a' was used before"):
        work.map("a", chunks(), roots)


def test_names_that_share_files_are_one_name(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.map("along l2", chunks(), roots)
    with pytest.raises(ValueError, match="name"):
        work.map("along-l2", chunks(), roots)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    Work(tmp_path).map("roots", chunks(), roots)
    path = sorted((tmp_path / PARTS / "roots").iterdir())[0]
    path.write_bytes(b"not a file of torch")
    with pytest.raises(ValueError, match=r"000000\.pt is damaged; delete it and resume"):
        Work(tmp_path).map("roots", chunks(), roots)


def killed(folder: Path, calls: int, before: bool) -> None:
    assert files_module.os is os
    die_at_call("replace", calls, before)
    Work(folder).map("roots", chunks(), roots)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("before", [True, False])
def test_a_killed_run_resumes_to_the_same(tmp_path: Path, before: bool) -> None:
    process = start(killed, tmp_path, 2, before)
    process.join()
    assert process.exitcode == -9
    assert len(list((tmp_path / PARTS / "roots").glob("*.pt"))) == (1 if before else 2)
    resumed = joined(Work(tmp_path).map("roots", chunks(), roots))
    whole = joined(Work().map("roots", chunks(), roots))
    assert all(torch.equal(resumed[k], whole[k]) for k in whole)
    assert not list(tmp_path.rglob("*.tmp"))


def test_slug() -> None:
    assert slug("ρ_adv, by Class (ℓ2)") == "adv-by-class-2"
