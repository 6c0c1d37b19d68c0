"""One pair along a sweep: distances, planes and mirror images agree; the pictures and the page's sections are made."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pyrobust.analysis.commands.linear import linear_sections
from pyrobust.analysis.page import write_page
from pyrobust.analysis.session import Session
from pyrobust.analysis.sweep import Sweep, regularisation_sweep
from pyrobust.analysis.sweep_view import SweepView
from pyrobust.data import Data, digits

pytest.importorskip("sklearn")

DATA = digits()
assert DATA.train is not None


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    assert DATA.train is not None
    return regularisation_sweep(*DATA.train, *DATA.test, pairs=[(0, 1), (1, 8)], lambdas=[0.1, 10.0, 1e3])


@pytest.fixture(scope="module")
def view(sweep: Sweep) -> SweepView:
    assert DATA.train is not None
    return sweep.view(1, *DATA.train)


def test_view_is_of_the_samples_that_were_fitted(sweep: Sweep, view: SweepView) -> None:
    rounding = {"rtol": 0, "atol": 1e-12}  # sums of 240 terms of size about 1
    torch.testing.assert_close(view.distances.mean(1), sweep.adversarial_distance[1], **rounding)
    torch.testing.assert_close((view.distances <= 0).double().mean(1), sweep.train_error[1], **rounding)
    for k, plane in enumerate(view.planes):
        theta = sweep.angle[1, k]
        torch.testing.assert_close(plane.normal, torch.stack([theta.cos(), theta.sin()]), rtol=0, atol=1e-7)


def test_representatives_and_mirrors(view: SweepView) -> None:
    for label in (0, 1):
        samples = view.inputs[view.labels == label].double()
        apart = (samples - samples.mean(0)).flatten(1).norm(dim=1)
        chosen = (view.representatives[label].double() - samples.mean(0)).norm()
        assert float(chosen) == float(apart.min())
    for k in range(3):
        moved = (view.mirrors(k) - view.representatives.double()).flatten(1)
        unit = view.weight[k] / view.weight[k].norm()
        along = (moved @ unit).unsqueeze(1) * unit
        torch.testing.assert_close(moved, along, rtol=0, atol=1e-12)


def test_tracks_show_mirror_images_as_far_behind_the_boundary_as_they_are_apart(view: SweepView) -> None:
    for k, plane in enumerate(view.planes):
        sides = view.tracks[k] @ plane.normal + plane.offset  # (2, 2): signed distances of x and x_m, of y and y_m
        torch.testing.assert_close(sides[:, 1], -sides[:, 0], rtol=0, atol=1e-10)
        apart = (view.tracks[k, :, 1] - view.tracks[k, :, 0]).norm(
            dim=1
        )  # as far as the images are: w lies in the plane
        moved = (view.mirrors(k) - view.representatives.double()).flatten(1).norm(dim=1)
        torch.testing.assert_close(apart, moved, rtol=0, atol=1e-6)


def test_pictures(sweep: Sweep, view: SweepView) -> None:
    pytest.importorskip("matplotlib")
    assert len(sweep.plot().axes) == 5  # four panels, and d_err's axis
    assert len(view.plot_distances([0, 2]).axes) == 4  # a histogram and a loss each
    planes = view.plot_planes([0, 2]).axes
    assert len(planes) == 2
    for axis, k in zip(planes, (0, 2), strict=True):
        drawn = [line.get_xydata() for line in axis.lines if line.get_linestyle() == "--"]
        assert torch.equal(torch.tensor(np.stack(drawn)), view.tracks[k])
        (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
        across, up = view.tracks[k].flatten(0, 1).unbind(1)
        assert left < across.min() <= across.max() < right
        assert low < up.min() <= up.max() < high
    assert len(view.plot_mirrors([0, 1, 2]).axes) == 8
    assert len(view.plot_frame(1).axes) == 7
    flat = SweepView(view.loss, view.inputs.flatten(1), view.labels, view.lambdas, view.weight, view.bias)
    assert len(flat.plot_frame(1).axes) == 3
    with pytest.raises(ValueError, match=r"^inputs: "):
        flat.plot_mirrors([0])


def test_sections(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    session = Session(nn.Identity(), "", DATA, *DATA.test, torch.device("cpu"))
    sections = linear_sections(session, classes=(0, 1), loss="softplus", images=30, lambdas=3)
    measures, *_, animation = sections
    assert measures.table is not None
    assert [row[:2] for row in measures.table.rows] == [("0 / 1", "0.1"), ("0 / 1", "10"), ("0 / 1", "1e+03")]
    assert measures.data["sweep"].loss == "softplus"
    assert measures.data["sweep"].images.tolist() == [30]
    assert animation.slider is not None
    assert animation.slider.values == ["0.1", "10", "1e+03"]
    sizes = {image.open(io.BytesIO(frame)).size for frame in animation.slider.frames}
    assert len(sizes) == 1, "frames do not jump"
    assert write_page(tmp_path, "Linear", sections, environment={"torch": torch.__version__}).stat().st_size < 3e6


@pytest.mark.parametrize(
    ("given", "named"),
    [({"lambdas": 1}, "lambdas"), ({"lowest": 2.0, "highest": 1.0}, "lambdas"), ({"images": 0}, "images")],
)
def test_errors_name_the_option(given: dict, named: str) -> None:
    session = Session(nn.Identity(), "", DATA, *DATA.test, torch.device("cpu"))
    with pytest.raises(ValueError, match=f"^{named}: "):
        linear_sections(session, **given)


def test_training_data_are_needed() -> None:
    alone = Data("alone", DATA.test)
    with pytest.raises(ValueError, match="expected one with a training part"):
        linear_sections(Session(nn.Identity(), "", alone, *alone.test, torch.device("cpu")))
