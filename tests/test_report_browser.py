"""The page in a real Chromium: no message, no request, and every control does what it says."""

import shutil
from pathlib import Path

import pytest
from test_report import place  # noqa: F401 - the same run

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs an installed Chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        # Chromium refuses its sandbox to root, who runs tests in containers; the page is our own.
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def page(browser, place: Path):  # noqa: F811
    shown = browser.new_page()
    shown.said, shown.asked = [], []
    shown.on("console", lambda message: shown.said.append(message.text))
    shown.on("pageerror", lambda error: shown.said.append(str(error)))
    shown.on("request", lambda request: shown.asked.append(request.url))
    shown.goto((place / "runs" / "0001" / "report.html").as_uri())
    return shown


@pytest.fixture(autouse=True)
def quiet_page(page):
    yield
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == page.asked[:1]


def test_images_are_shown(page):
    assert page.evaluate("[...document.images].length > 0")
    page.wait_for_function("[...document.images].every((image) => image.naturalWidth > 0)")


def test_matrix_shows_images_by_click_and_moves_by_keys(page):
    full = page.locator("[data-cell]:not([data-n='0'])").first
    full.click()
    number = int(full.get_attribute("data-n"))
    assert f"{number} images" in page.inner_text("#cell p")
    assert page.locator("#cell figure").count() == min(number, 12)
    page.locator("[data-cell='0,0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.cell") == "1,1"
    page.keyboard.press("Enter")
    assert page.get_attribute("[data-cell='1,1']", "aria-current") == "true"


def test_matrix_shows_shares(page):
    page.click("#shares")
    cell = page.locator("[data-cell]:not([data-n='0'])").first
    assert cell.inner_text() == cell.get_attribute("data-share")
    page.click("#counts")
    assert cell.inner_text() == cell.get_attribute("data-n")


def test_classes_sort_and_filter(page):
    page.click("#per-class th:nth-child(4) button")
    recall = [float(text.rstrip("%")) for text in page.locator("#per-class td:nth-child(4)").all_inner_texts()]
    assert recall == sorted(recall, reverse=True)
    page.click("#per-class th:nth-child(4) button")
    assert page.get_attribute("#per-class th:nth-child(4)", "aria-sort") == "ascending"
    page.fill("#filter", "<b>")
    assert page.locator("#per-class tbody tr:visible").count() == 1
    page.fill("#filter", "")


def test_pairs_show_their_images_and_sort(page):
    button = page.locator("[data-pair]").first
    true, said, n = page.locator("#pairs tbody tr").first.locator("td").all_inner_texts()[:3]
    button.click()
    assert page.inner_text("#cell p").startswith(f"{true} predicted as {said}: {n} image")
    assert page.locator("#cell figure").count() == min(int(n), 12)
    for column, numeric in ((1, False), (3, True)):
        page.click(f"#pairs th:nth-child({column}) button")
        shown = page.locator(f"#pairs td:nth-child({column})").all_inner_texts()
        expected = sorted(shown, key=int, reverse=True) if numeric else sorted(shown, key=str.lower)
        assert shown == expected
        assert page.locator("#pairs th[aria-sort]").count() == 1


def test_classes_sort_by_name(page):
    names = []
    for direction in ("ascending", "descending"):
        page.click("#per-class th:nth-child(1) button")
        assert page.get_attribute("#per-class th:nth-child(1)", "aria-sort") == direction
        names.append(page.locator("#per-class tbody th").all_inner_texts())
    assert names[0] == names[1][::-1]
    assert names[0][-2:] == ["beet", "corn"]


def test_map_moves_by_mouse_and_keys_and_changes_its_view(page):
    before = page.get_attribute("#points circle", "cx")
    page.click("#pca")
    assert page.get_attribute("#points circle", "cx") != before
    page.locator("#points circle").last.hover(force=True)
    assert page.locator("#point figure img").count() == 1
    page.locator("#points").focus()
    first = page.inner_text("#point")
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    assert page.locator("#points .on").count() == 1
    assert first
    page.click("#by-right")
    assert "wrong" in page.inner_text("#legend")


def test_long_names_hide_no_column_and_foreign_scripts_turn_no_figure(page):
    for table in ("per-class", "pairs"):
        spare = page.evaluate(
            """(id) => { const name = document.querySelector(`#${id} tbody bdi`), before = name.textContent;
              name.textContent = "x".repeat(300); const box = document.getElementById(id).parentElement;
              const spare = box.clientWidth - box.scrollWidth; name.textContent = before; return spare; }""",
            table,
        )
        assert spare >= 0, table
    assert page.locator("#worst figcaption > bdi").count() >= 2 * page.locator("#worst figure").count()


def test_theme_changes_and_print_is_light(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    page.click("#theme")
    assert page.evaluate(paper) != before
    page.emulate_media(media="print")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert not page.is_visible("nav")
    page.evaluate("document.querySelector('#cell').replaceChildren()")
    assert not page.is_visible("#cell")  # nothing can be chosen on paper
    page.emulate_media(media="screen")
    page.click("#theme")


def test_narrow_screens_need_no_sideways_scrolling(page):
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
