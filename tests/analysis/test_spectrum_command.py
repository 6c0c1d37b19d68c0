"""What the command shows of a small network: numbers that follow from the functions, and no more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyrobust.analysis import alignment, jacobian_spectrum, lipschitz_upper, operator_norms
from pyrobust.analysis.session import Session
from pyrobust.data import Data
from tests.analysis.test_jacobian import conv_net, images

pytest.importorskip("matplotlib")
from pyrobust.analysis.commands.spectrum import perturbed, spectrum_sections


def session_of(model: nn.Module) -> Session:
    x = images(12, torch.float32)
    with torch.no_grad():
        labels = model(x).argmax(1)
    return Session(model, "net", Data("made up", (x, labels)), x, labels, torch.device("cpu"), batch_size=8)


def test_sections() -> None:
    model = conv_net(torch.float32).eval()
    session = session_of(model)
    values, norms, aligned, bounds = spectrum_sections(session)
    expected = jacobian_spectrum(model, session.inputs, batch_size=8)
    assert torch.equal(values.data["spectra"]["net"].values, expected.values)
    assert values.data["spectra"].keys() == {"net", "untrained"}
    found = operator_norms(model, session.inputs, batch_size=8).values["linf", "l1"]
    assert torch.equal(norms.data["linf to l1"]["values"], found)
    assert len(norms.table.rows) == 9
    assert {key: one.cosines.shape for key, one in aligned.data["aligned"].items()} == {
        f"{attack}, {network}": (12, 3)
        for attack in ("gradient ascent", "smallest")
        for network in ("net", "untrained")
    }
    assert bounds.data["bound"] == lipschitz_upper(model, (2, 4, 4)).bound
    assert float(bounds.data["near"].max()) < bounds.data["bound"]
    assert all(section.figure is not None for section in (values, norms, aligned, bounds))


def test_options() -> None:
    model = conv_net(torch.float32).eval()
    session = session_of(model)
    values, norms, aligned, bounds = spectrum_sections(session, layer="2", k=4, eps=0.25, untrained=False)
    assert values.data["spectra"].keys() == {"net"}
    assert values.data["spectra"]["net"].values.shape == (12, 4)
    assert "outputs of 2" in norms.text
    assert bounds.data["eps"] == aligned.data["eps"] == 0.25
    fresh = session_of(model)
    points = perturbed(fresh, "moved", lambda x, _, ids: x + 0.01 * (1 + ids).reshape(-1, 1, 1, 1))
    torch.testing.assert_close(
        points - fresh.inputs, 0.01 * torch.arange(1.0, 13).reshape(-1, 1, 1, 1).expand(12, 2, 4, 4)
    )
    assert alignment(model, fresh.inputs, points, "2").cosines.shape == (12, 32)


def test_a_network_without_an_upper_bound() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, 3)).eval()
    bounds = spectrum_sections(session_of(model), eps=0.1)[-1]
    assert "No upper bound: model: no Lipschitz constant is known of LayerNorm at '1'." in bounds.text
    assert bounds.figure is None
    assert "bound" not in bounds.data


def test_a_network_that_cannot_be_drawn_anew() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((32,), 2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    model = nn.Sequential(nn.Flatten(), Scaled(), nn.Linear(32, 3)).eval()
    values, *_ = spectrum_sections(session_of(model), eps=0.1)
    assert values.data["spectra"].keys() == {"net"}
    assert "No untrained network: model: 1 (Scaled) has no reset_parameters." in values.text


def test_nothing_to_take_the_radius_from() -> None:
    constant = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)).eval()
    with torch.no_grad():
        constant[1].weight.zero_()
    with pytest.raises(ValueError, match="eps: the attack found no adversarial example"):
        spectrum_sections(session_of(constant))
    with pytest.raises(ValueError, match="eps: expected a finite number > 0"):
        spectrum_sections(session_of(conv_net(torch.float32).eval()), eps=0.0)
