"""The page of a run, made by the workflow and looked at in a browser."""

import itertools
import re

import pytest
from browser import browser
from running import Workflow, every_kind
from test_own_observations import observe

pytestmark = pytest.mark.slow

LABEL = "<b>$x$ & 'y'"
PAGE = "results/index.html"

NOT_WHOLE = """
[...document.images].filter((image) => {
  const box = image.getBoundingClientRect();
  const ratio = (box.width / box.height) / (image.naturalWidth / image.naturalHeight);
  const around = image.closest(".sheet").getBoundingClientRect();
  return !(
    image.complete && image.naturalWidth > 0 && Math.abs(ratio - 1) < 0.02
    && box.left >= 0 && box.right <= innerWidth
    && box.top >= around.top && box.bottom <= around.bottom
  );
}).map((image) => image.alt)
"""
"""The pictures that are not loaded, or not shown as a whole and in their proportions."""

TOO_WIDE = """
[...document.querySelectorAll("body *")].filter((each) =>
  each.getBoundingClientRect().right > innerWidth && !each.closest(".scroll, pre")
).map((each) => each.outerHTML.slice(0, 80))
"""
"""What reaches beyond the window and does not scroll by itself."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with figures, ceilings, a choice of laps and a label full of signs: read only."""
    workflow = Workflow(tmp_path_factory.mktemp("page"))
    entry = workflow.experiment
    entry["runs"]["base"]["label"] = LABEL
    entry["figures"] = ["evolution", "corner_truth", "divergence", "lap_choice"]
    entry["figures"] += ["calibration", "losses"]
    entry["evaluation"]["metrics"] += ["calibration", "prediction"]
    workflow.config["heuristics"] = every_kind("heuristics", "tiny")["heuristics"]
    workflow.make()
    return workflow


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def test_the_page_shows_all_that_is_made(made):
    html = made.path(PAGE).read_text(encoding="utf-8")

    places = [
        html.index(f'<section id="{name}"') for name in ("experiments-tiny", "heuristics-tiny")
    ]
    assert places == sorted(places)
    drawn = sorted(path.stem for path in made.path("results/figures").glob("*.png"))
    tables = sorted(path.stem for path in made.path("results/tables").glob("*.html"))
    assert sorted(re.findall(r'<figure id="figures-([^"]+)"', html)) == drawn
    assert sorted(re.findall(r'<article id="tables-([^"]+)"', html)) == tables
    for heading in re.findall(r"<th[^>]*>(.*?)</th>", html):
        text = re.sub("<[^>]+>", "", heading)
        assert len(re.findall(r"\S*\w\S*", text)) <= 4, text
    assert html.count("data:image/png") == len(drawn) > 5
    assert "&lt;b&gt;$x$ &amp; &#39;y&#39;" in html
    assert "<b>" not in html


def test_the_same_results_give_the_same_page(made):
    before = made.path(PAGE).read_bytes()
    made.path(PAGE).unlink()

    made.make(PAGE)

    assert made.path(PAGE).read_bytes() == before


def test_an_entry_has_a_page_of_its_own(made):
    made.make("results/pages/tiny.html")

    html = made.path("results/pages/tiny.html").read_text(encoding="utf-8")
    assert "../figures/tiny_evolution.pdf" in html
    assert "paper_vs_ours" not in html


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_as_a_whole(made, chromium, width):
    chromium.open(made.path(PAGE), width)

    assert chromium.complaints() == []
    elsewhere = [url for url in chromium.requested()[1:] if not url.startswith("data:")]
    assert elsewhere == []
    assert chromium.value("document.images.length") > 5
    assert chromium.value(NOT_WHOLE) == []
    assert chromium.value(TOO_WIDE) == []
    assert chromium.value("document.documentElement.scrollWidth") == width
    named = "document.getElementById(decodeURIComponent(a.hash.slice(1)))"
    lost = f"[...document.querySelectorAll('a[href^=\"#\"]')].filter((a) => !{named}).length"
    assert chromium.value(lost) == 0
    shown = "[...document.querySelectorAll('.side, .menu')].map((e) => e.checkVisibility())"
    assert chromium.value(shown) == [width < 600, width > 600]


def test_links_lead_to_files_beside_the_page(made, chromium):
    chromium.open(made.path(PAGE), 1280)

    links = chromium.value("[...document.querySelectorAll('.links a')].map((a) => a.href)")
    assert len(links) > 10
    for link in links:
        assert (made.folder / link.removeprefix(made.folder.as_uri()).lstrip("/")).is_file()


def test_a_figure_opens_at_full_size_and_closes(made, chromium):
    chromium.open(made.path(PAGE), 390)
    size = "document.querySelector('figure img').getBoundingClientRect().width"
    assert chromium.value(size) < 390

    chromium.value("document.querySelector('figure .open').click()")
    assert chromium.value(size) >= 1200
    key = {"key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27}
    chromium.ask("Input.dispatchKeyEvent", type="keyDown", **key)
    assert chromium.value(size) < 390


def test_the_contents_tell_where_one_is(made, chromium):
    chromium.open(made.path(PAGE), 1280, 300)  # so low that the contents scroll

    chromium.value("document.getElementById('tables-hyperparameters').scrollIntoView()")
    chromium.value("new Promise((done) => setTimeout(done, 300))")
    told = "document.querySelector('.side [aria-current]')"
    assert chromium.value(f"{told}.hash") == "#tables-hyperparameters"
    assert chromium.value(f"{told}.getBoundingClientRect().bottom") <= 300
    place = "document.getElementById('tables-hyperparameters').getBoundingClientRect().top"
    assert 0 <= chromium.value(place) <= 60  # the page itself has not moved


def test_the_menu_of_a_phone_opens_and_closes(made, chromium):
    chromium.open(made.path(PAGE), 390)
    opened = "document.querySelector('.menu').open"
    assert chromium.value(opened) is False

    chromium.value("document.querySelector('.menu summary').click()")
    assert chromium.value(opened) is True
    chromium.value("document.querySelector('.menu a[href=\"#costs\"]').click()")
    assert chromium.value(opened) is False
    assert chromium.value("location.hash") == "#costs"


def test_headings_are_in_order_and_pictures_are_told(made, chromium):
    chromium.open(made.path(PAGE), 1280)

    levels = chromium.value(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((heading) => +heading.tagName[1])"
    )
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert chromium.value("[...document.images].every((image) => image.alt.length > 30)")
    assert chromium.value("[...document.querySelectorAll('th')].every((th) => th.scope)")


def test_observations_of_ones_own_have_a_page(tmp_path):
    workflow = Workflow(tmp_path)
    observe(workflow.folder)
    workflow.config = every_kind("experiments", "sky")

    workflow.make()

    html = workflow.path(PAGE).read_text(encoding="utf-8")
    outcome = html[html.index('<section id="outcomes"') : html.index('<section id="method"')]
    assert "Prediction of hidden observations" in outcome
    assert "ceiling)</th>" not in outcome
