from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from pyrobust.evaluation import Report, evaluate, formatting
from pyrobust.evaluation.examples import choose_examples

from . import toy_attacks


@pytest.fixture(scope="module")
def report(digits_model: nn.Module) -> Report:
    """A run in two norms with two attacks, one of them a sweep."""
    from pyrobust.data import digits

    inputs, labels = digits().test
    return evaluate(
        digits_model,
        (inputs[:60], labels[:60]),
        norms=["linf", "l2"],
        attacks={"linf": [toy_attacks.walk, toy_attacks.step_once], "l2": toy_attacks.walk},
        eps={"linf": [i / 20 for i in range(1, 9)]},
        batch_size=32,
        name="net <&>",
    )


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report, saved."""
    path = tmp_path_factory.mktemp("saved")
    assert report.save(path) == path / "report.html"
    return path


class Links(HTMLParser):
    """Collects what a page refers to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    return links


def test_the_page_needs_nothing_else(folder: Path) -> None:
    links = parse(folder / "report.html")
    assert len(links.sources) == 3  # curves, histograms, examples
    assert all(s.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for s in links.sources)
    assert not {"script", "link", "iframe", "object"} & set(links.tags)
    style = re.search(r"<style>(.*?)</style>", (folder / "report.html").read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_embedded_figures_refer_to_nothing_outside(folder: Path) -> None:
    for source in parse(folder / "report.html").sources:
        kind, content = source.split(";base64,")
        figure = base64.b64decode(content)
        if kind == "data:image/png":
            assert figure.startswith(b"\x89PNG")
        else:
            references = re.findall(r'href="([^"]*)"', figure.decode())
            assert all(r.startswith(("#", "data:")) for r in references)


def test_the_page_shows_the_figures_settings_and_versions(report: Report, folder: Path) -> None:
    text = parse(folder / "report.html").text
    figures = report.summary()["norms"]["l2"]["walk"]
    assert figures["gradients"] == 40
    for shown in (
        "net <&>",
        formatting.percent(report.clean_accuracy),
        formatting.distance(figures["median"]),
        formatting.distance(figures["mean"]),
        torch.__version__,
        "best of all",
        "masking check",
        "toy_attacks:step_once",
        report.manifest["fingerprint"][:16],
        "Budget sweeps",
    ):
        assert shown in text, shown


def test_warnings_are_shown_and_their_absence_too(digits_model: nn.Module, images: tuple, tmp_path: Path) -> None:
    failing = evaluate(digits_model, images, norms="l2", attacks=toy_attacks.clean, batch_size=16)
    text = " ".join(parse(failing.save(tmp_path / "failing")).text.split())
    assert len(failing.warnings) == 1
    assert failing.warnings[0] in text
    sound = evaluate(digits_model, images, norms="l2", attacks=toy_attacks.walk, batch_size=16)
    assert "No sign of gradient masking" in parse(sound.save(tmp_path / "sound")).text


def test_summary_and_results_are_saved_as_they_are(report: Report, folder: Path) -> None:
    assert pq.read_table(folder / "results.parquet").equals(report.results)
    saved = json.loads((folder / "summary.json").read_text())
    assert saved["clean_accuracy"] == report.clean_accuracy
    assert saved["norms"]["l2"]["walk"]["median"] == report.summary()["norms"]["l2"]["walk"]["median"]
    for name in ("curves.png", "examples.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_infinite_medians_are_valid_json(digits_model: nn.Module, images: tuple, tmp_path: Path) -> None:
    evaluate(digits_model, images, norms="l2", attacks=toy_attacks.clean, batch_size=16).save(tmp_path)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    saved = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert float(saved["norms"]["l2"]["clean"]["median"]) == float("inf")


def test_saving_twice_gives_the_same_bytes(report: Report, folder: Path, tmp_path: Path) -> None:
    report.save(tmp_path)
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("shape", [(12,), (3, 6, 6), (2, 4, 4)])
def test_any_kind_of_input_can_be_reported(shape: tuple, tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.rand(9, *shape)
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), 3)).eval()
    labels = model(inputs).argmax(1)
    report = evaluate(model, (inputs, labels), norms=["l2", "l0"], attacks=toy_attacks.walk, batch_size=4)
    links = parse(report.save(tmp_path))
    assert len(links.sources) == (3 if shape[0] == 3 else 2)
    assert ("counts pixels" in " ".join(links.text.split())) == (len(shape) == 3)


def test_a_model_that_is_always_wrong_can_be_reported(images: tuple, tmp_path: Path) -> None:
    inputs, _ = images
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    wrong = (model(inputs).argmax(1) + 1) % 10
    report = evaluate(model, (inputs, wrong), norms="l2", attacks=toy_attacks.walk, batch_size=16)
    report.save(tmp_path)
    figures = report.summary()["norms"]["l2"]["walk"]
    assert report.clean_accuracy == 0
    assert figures["success_rate"] is None
    assert figures["area"] == 0


def test_examples_show_each_class_once_before_any_twice(report: Report, digits_model: nn.Module) -> None:
    assert report.examples is not None
    assert len(report.examples.labels) == 8
    assert len(set(report.examples.labels)) == 8
    row = report.examples.rows[0]
    clean = report.examples.originals
    for number, point in enumerate(row.points):
        assert point is not None
        assert digits_model(torch.from_numpy(point.copy())[None]).argmax().item() == row.predictions[number]
        assert abs(point - clean[number]).max() == pytest.approx(row.distances[number], rel=1e-6)


def test_few_correct_samples_make_few_examples() -> None:
    import pyarrow as pa

    clean = pa.table({"sample_id": [0, 1, 2, 3], "label": [5, 5, 1, 1], "correct": [True, True, True, False]})
    assert choose_examples(clean, 2) == {0, 2}
    assert choose_examples(clean) == {0, 1, 2}


@pytest.mark.parametrize(("value", "text"), [(500.0, "500"), (512.4, "512"), (45.31, "45.3"), (3.0, "3"), (None, "–")])
def test_counts_are_short(value: float | None, text: str) -> None:
    assert formatting.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.10493, "0.105"), (48.0, "48"), (float("inf"), "∞"), (None, "–"), (1234.5, "1234"), (2.7, "2.70")],
)
def test_distances_have_three_digits(value: float | None, text: str) -> None:
    assert formatting.distance(value) == text


def test_times_and_dates_are_readable() -> None:
    assert [formatting.duration(s) for s in (3.14, 150, 9000)] == ["3.1 s", "2.5 min", "2.5 h"]
    assert formatting.date("2026-05-03T14:05:00+00:00") == "3 May 2026, 14:05 UTC"
