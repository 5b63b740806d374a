"""The pages of the committed notebooks in a real browser, in a window as narrow as a telephone's."""

import shutil
from pathlib import Path

import pytest

from textnorm_lib.study import pages

CHECKOUT = Path(__file__).parents[2]
NARROW = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The index of pages made from the notebooks as they are committed, taken for runs."""
    artifacts = tmp_path_factory.mktemp("artifacts")
    runs = artifacts / "runs" / "smoke"
    runs.mkdir(parents=True)
    for name in ("01_build_tia2.ipynb", "02_benchmark_rewards.ipynb", "04_best_of_n.ipynb"):
        shutil.copy(CHECKOUT / "notebooks" / name, runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTNORM_ARTIFACTS", str(artifacts))
        return pages.make_pages("smoke")[-1]


def defects(page):
    """What is wrong with the page that is shown."""
    return page.evaluate(
        """() => [
            ...(document.documentElement.scrollWidth > innerWidth ? ["is wider than the window"] : []),
            ...[...document.images].filter(image => !image.naturalWidth).map(image => "not loaded: " + image.alt),
            ...[...document.images].filter(image => !image.alt).map(image => "no alt text: " + image.outerHTML),
            ...[...document.links].filter(link => !link.textContent.trim()).map(link => "no text: " + link.href),
        ]"""
    )


def test_pages_fit_a_narrow_window_load_whole_ask_for_nothing_and_lead_on(index, page):
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url[:100]}"))
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size(NARROW)
    page.goto(index.as_uri())
    assert defects(page) == []
    page.get_by_role("link", name="01 · TIA2").click()
    for name in ("01_build_tia2", "02_benchmark_rewards"):
        assert page.url == index.with_name(f"{name}.html").as_uri()
        assert page.locator("math").count() > 5 and page.locator(".output_png img").count() > 2
        assert defects(page) == []
        page.locator("nav a[rel=next]").first.click()
    assert page.url == index.with_name("04_best_of_n.html").as_uri()
    assert said == []
    assert {url for url in asked if not url.startswith(("file:", "data:image/"))} == set()
    assert all(path.stat().st_size < 3_000_000 for path in index.parent.iterdir())


def test_what_is_too_wide_for_the_window_scrolls_within_itself(index, page):
    page.set_viewport_size(NARROW)
    page.goto(index.with_name("02_benchmark_rewards.html").as_uri())
    moved = page.evaluate(
        """selectors => selectors.map(selector => {
            const wide = [...document.querySelectorAll(selector)].find(it => it.scrollWidth > it.clientWidth);
            if (wide) wide.scrollLeft = 50;
            return wide ? wide.scrollLeft : 0;
        })""",
        [".input_area pre", ".output_html .wide"],
    )
    assert moved == [50, 50]
