"""The sections of filters, fooling and transfer: every figure and table is there, and says what was measured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("matplotlib")

from pyrobust.analysis import fooling_images, recognised
from pyrobust.analysis.commands.filters import filters_sections
from pyrobust.analysis.commands.fooling import EPS, fooling_sections
from pyrobust.analysis.commands.transfer import transfer_sections
from pyrobust.analysis.page import write_page
from pyrobust.analysis.session import Session
from pyrobust.analysis.work import Work
from pyrobust.data import Data
from pyrobust.models import small_cnn


def session(model: nn.Module, shape=(1, 8, 8), work: Work | None = None) -> Session:
    x = torch.rand(12, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(x).argmax(1)
    labels[0] = (labels[0] + 1) % 10
    return Session(
        model,
        "net",
        Data("made up", test=(x, labels)),
        x,
        labels,
        torch.device("cpu"),
        batch_size=8,
        work=work or Work(),
    )


def test_filters(tmp_path):
    model = small_cnn().eval()
    weights, saliency, preferred, images = made = filters_sections(session(model), per_layer=4, shown=3, steps=5)
    assert [row[:2] for row in weights.table.rows][:2] == [("0", "16 × 1 × 3 × 3"), ("2", "32 × 16 × 3 × 3")]
    assert weights.data["layers"][0]["rms"] == pytest.approx(model[0].weight.square().mean().sqrt().item(), rel=1e-6)
    assert len(saliency.data["classes"]) == 3
    assert len(images.data["confidence"]) == 10
    assert "5 steps" in images.text
    assert all(section.figure is not None for section in made)
    write_page(tmp_path, "filters", made)
    names = {"weights.png", "saliency.png", "preferred-inputs-of-units.png", "class-images.png"}
    assert {path.name for path in tmp_path.glob("*.png")} == names
    assert preferred.data["layer"] == "5", "the layer before the one of the logits"
    assert preferred.text.startswith("The first 16 of 64 units of layer 5: ")
    assert bool((preferred.data["activation"] > preferred.data["before"]).all())
    *_, preferred, _ = filters_sections(session(model), steps=2, layer="2", units=40)
    assert preferred.text.startswith("All 32 units of layer 2: ")
    assert len(preferred.data["units"]) == 32
    with pytest.raises(ValueError, match="layer: expected one of 0, 1, 2, 3, 4, 5, 6, 7, got 'x'"):
        filters_sections(session(model), steps=2, layer="x")


def test_filters_of_a_network_without_relu():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh(), nn.Linear(10, 10)).eval()
    _, saliency, _, _ = filters_sections(session(model), steps=2)
    assert "calls no ReLU" in saliency.text
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    assert len(filters_sections(session(single), steps=2)) == 3, "no units but the classes'"
    flat = nn.Sequential(nn.Linear(64, 10)).eval()
    with pytest.raises(ValueError, match="data: expected images"):
        filters_sections(session(flat, (64,)))


def test_fooling():
    model = small_cnn().eval()
    images, curves = fooling_sections(session(model), trials=3, steps=2, threshold=0.2)
    targets = torch.arange(10)
    wanted = recognised(model, fooling_images(model, targets, (1, 8, 8)), targets)
    # Logits in float32 of batches of another size differ in their last bits.
    torch.testing.assert_close(images.data["confidence"], wanted.confidence, rtol=1e-5, atol=0)
    assert len(images.table.rows) == 10
    assert set(curves.data["curves"]) == {"single step", "2 steps"}
    assert len(curves.table.rows) == len(EPS)
    assert "0.2 or more" in curves.text
    with pytest.raises(ValueError, match="steps: expected an integer >= 2"):
        fooling_sections(session(model), steps=1)
    flat = nn.Sequential(nn.Linear(64, 10)).eval()
    images, _ = fooling_sections(session(flat, (64,)), trials=2, steps=2)
    assert images.figure is None


def test_transfer(tmp_path):
    model, other = small_cnn().eval(), small_cnn(1).eval()
    matrix, distances = transfer_sections(session(model, work=Work(tmp_path)), [("other", other)], eps=0.05, steps=3)
    assert matrix.data["matrix"].names == ("net", "other")
    assert matrix.table.columns == ("made on", "clean accuracy", "fools net", "fools other")
    assert matrix.table.rows[0][1] == "91.7 %"  # one of twelve labels is another
    assert distances.data["distribution"].correct.sum() == 11
    assert [row[0] for row in distances.table.rows] == [*map(str, range(10)), "all"]
    assert matrix.figure is not None
    assert distances.figure is not None


@pytest.mark.parametrize(
    ("against", "options", "message"),
    [
        ((), {}, "against: expected at least one other network"),
        ([("a", small_cnn(1)), ("a", small_cnn(2))], {}, "against: expected names that differ"),
        ([("net", small_cnn(1))], {}, "against: expected names that differ"),
        ([("a", small_cnn(1))], {"norm": "l0"}, "norm: expected"),
        ([("a", small_cnn(1))], {"eps": 0.0}, "eps: expected"),
        ([("a", small_cnn(1))], {"steps": 0}, "steps: expected"),
    ],
)
def test_bad_options_are_named(against, options, message):
    with pytest.raises(ValueError, match=message):
        transfer_sections(session(small_cnn().eval()), against, **options)
