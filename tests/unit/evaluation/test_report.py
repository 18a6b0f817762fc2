"""The report is one page that needs nothing else, in light and dark, and says everything there is."""

import re
from html import escape
from html.parser import HTMLParser

import pytest

from marginal.evaluation.conclusion import conclude
from marginal.evaluation.drawing import DARK, LIGHT
from marginal.evaluation.figures import pictures, slug
from marginal.evaluation.protocol import Evaluation, Protocol
from marginal.evaluation.replay import ScoreChoice
from marginal.evaluation.report import Origin, file_names, render
from marginal.evaluation.results import Run
from marginal.evaluation.sweep import sweep
from unit.evaluation.made_runs import header, made_run

ORIGIN = Origin("marginal evaluate made.jsonl -o '<b>.html'", "1.2.3")
NASTY = '<script>alert("x")</script>&'
VOID = {"meta", "path", "use", "br", "rect", "image", "circle", "line"}


class Page(HTMLParser):
    """What is on a page: elements with their attributes, text by element, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def evaluated(run: Run, share: float | None = 0.05) -> Evaluation:
    scores = tuple(map(ScoreChoice, ("first_token_margin", "entropy", "min_margin")))
    return sweep(run, Protocol(scores=scores, budgets=11, orders=1, holdout=100, aborted_share=share, resamples=50))


@pytest.fixture(scope="module")
def evaluations() -> list[Evaluation]:
    nasty = made_run(400, priced=False)
    return [
        evaluated(made_run(400, tokens=3, name="priced")),
        evaluated(Run(header(small=NASTY), nasty.rows, f"nasty {NASTY}")),
    ]


@pytest.fixture(scope="module")
def html(evaluations: list[Evaluation]) -> str:
    return render(evaluations, ORIGIN)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_element_is_closed_and_every_id_is_there_once(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 10


def test_every_reference_has_its_target(page: Page, html: str) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    referred = re.findall(r"url\(#([^)]+)\)", html) + re.findall(r'href="#([^"]+)"', html)
    labels = [label for _, attributes in page.elements for label in attributes.get("aria-labelledby", "").split()]
    assert {*referred, *labels} <= ids


def test_nothing_is_requested_and_nothing_is_run(page: Page, html: str) -> None:
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not {"script", "link", "img", "iframe", "object"} & {name for name, _ in page.elements}
    assert "@import" not in html
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_names_are_escaped(html: str) -> None:
    assert NASTY not in html
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;.html" in html


def test_both_colour_schemes_are_there_and_pictures_follow_them(html: str) -> None:
    light, dark = html.split("@media (prefers-color-scheme: dark)", 1)
    assert f"--paper: {LIGHT['paper']}" in light
    assert f"--paper: {DARK['paper']}" in dark.split("}")[0]
    figures = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", figures)) == set()
    assert {f"--{name}" for name in ("ink", "muted", "grid", "best", "right", "wrong")} <= set(
        re.findall(r"var\((--[a-z]+)\)", figures)
    )


def test_the_conclusion_comes_before_the_pictures_and_these_before_the_tables(
    html: str, evaluations: list[Evaluation]
) -> None:
    headline = html.index(escape(conclude(evaluations[0]).headline))
    assert headline < html.index("<svg") < html.index("<table")
    assert html.rindex("<table") < html.index(">Method<")


def test_every_picture_has_a_title_a_description_and_text_in_the_pages_font(page: Page, html: str) -> None:
    pictured = page.named("svg")
    assert len(pictured) == 6 + 4
    assert all(svg["role"] == "img" and svg["aria-labelledby"] and svg["viewbox"] for svg in pictured)
    assert len(page.named("desc")) == len(pictured)
    assert "accuracy" in page.texts["text"]
    assert "DejaVu" not in "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))


def test_tables_have_captions_headings_and_scroll_by_themselves(page: Page) -> None:
    regions = [div for div in page.named("div") if div.get("role") == "region"]
    assert len(regions) == len(page.named("table"))
    assert all(region["class"] == "scroll" and region["aria-label"] for region in regions)
    assert all(th["scope"] in ("col", "row", "rowgroup") for th in page.named("th"))


def test_the_method_says_what_was_done_to_which_data_by_which_command(page: Page) -> None:
    text = " ".join(page.texts["dd"])
    assert "11 budgets" in text
    assert "priced: 300 rows after the first 100, which are held out" in text
    assert "0.05 of it, as given by --aborted-share" in text
    assert "(marginal 1.2.3)" in text


def test_every_cost_model_has_its_curve_and_the_figures_are_png_too(evaluations: list[Evaluation]) -> None:
    names = [picture.name for picture in pictures(evaluations[0])]
    assert names == [
        "priced-tokens-cost",
        "priced-time-cost",
        "priced-fixed-1-5-cost",
        "priced-deferral",
        "priced-calibration",
        "priced-histogram",
    ]
    pngs = file_names(evaluations[1:])
    assert len(pngs) == 4
    assert all(content.startswith(b"\x89PNG") for content in pngs.values())


def test_the_same_evaluation_gives_the_same_picture(html: str, evaluations: list[Evaluation]) -> None:
    assert pictures(evaluations[0])[0].svg() in html


def test_a_slug_can_be_a_files_name_and_an_id() -> None:
    assert slug("Qwen-2.5 → <b>") == "qwen-2-5-b"
    assert slug("→") == "run"
