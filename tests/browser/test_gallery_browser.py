"""The gallery of `dinodp predict` in a real browser."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scan_phantoms import FAST_FIT, WINDOW, head, healthy_folder, save
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from dinodp.cli import main

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1180,900")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver (Debian: chromium, chromium-driver)"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """The gallery of four volumes that were scored and one that was not, with a name that needs escaping.

    The first by name is the last by score. Two are of one subject, whose later scan has the lesion.
    """
    folder: Path = tmp_path_factory.mktemp("gallery")
    model = str(folder / "model.h5")
    assert main(["fit", str(healthy_folder(folder / "healthy")), "--out", model, *FAST_FIT, *WINDOW]) == 0
    save(folder / "new/a<b>.nii.gz", head(8))
    save(folder / "new/lesion.nii.gz", head(7, lesion=True))
    save(folder / "new/sub-1_ses-1.nii.gz", head(9))
    save(folder / "new/sub-1_ses-2.nii.gz", head(9, lesion=True))
    (folder / "new/torn.nii.gz").write_bytes(b"x")
    command = ["predict", str(folder / "new"), "--model", model, "--out", str(folder / "out"), "--masks"]
    assert main([*command, "--subject-pattern", "(?P<subject>sub-[0-9]+)"]) == 1
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.get((folder / "out/gallery.html").as_uri())
    yield driver
    driver.quit()


def names(page: webdriver.Chrome) -> list[str]:
    return [item.text for item in page.find_elements(By.CSS_SELECTOR, "main h2")]


def test_opens_without_a_message_or_a_request(page: webdriver.Chrome) -> None:
    assert page.get_log("browser") == []
    count = "return performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:')).length"
    assert page.execute_script(count) == 0
    assert page.execute_script("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert "backbone classical" in page.find_element(By.CSS_SELECTOR, ".quiet").text
    assert "it is no diagnosis" in page.find_element(By.CSS_SELECTOR, ".note").text


def test_shows_scans_sides_regions_and_failures(page: webdriver.Chrome) -> None:
    assert names(page) == ["a<b>", "lesion", "sub-1_ses-1", "sub-1_ses-2"]
    first = page.find_element(By.CSS_SELECTOR, ".scan")
    assert len(first.find_elements(By.CSS_SELECTOR, ".views figure")) == 3
    assert [side.text for side in first.find_elements(By.CSS_SELECTOR, ".views .side")[:4]] == ["R", "L", "A", "P"]
    caption = first.find_element(By.CSS_SELECTOR, ".views figcaption").text
    assert re.match(r"slice \d+ \(z −?\d+\.\d mm\), score ", caption)
    assert len(first.find_elements(By.CSS_SELECTOR, "tbody tr")) >= 1
    assert "torn.nii.gz is" in page.find_element(By.ID, "failed").text


def test_letters_lie_at_the_sides_and_the_mark_on_the_colours(page: webdriver.Chrome) -> None:
    layers = page.find_element(By.CSS_SELECTOR, ".views .layers")
    left, right, upper, lower = (item.rect for item in layers.find_elements(By.CSS_SELECTOR, ".side"))
    assert left["x"] < upper["x"] < right["x"]
    assert upper["y"] < left["y"] < lower["y"]
    bar, mark = (page.find_element(By.CSS_SELECTOR, name).rect for name in (".bar img", ".bar .mark"))
    middle = mark["x"] + mark["width"] / 2
    assert bar["x"] < middle < bar["x"] + bar["width"] / 2  # fpr01 lies a quarter of the way above fpr10
    assert "above the threshold fpr01, " in page.find_element(By.CSS_SELECTOR, ".controls").text


def test_overlay_lies_on_its_slice_and_fades(page: webdriver.Chrome) -> None:
    base, over = page.find_elements(By.CSS_SELECTOR, ".layers img")[:2]
    assert base.rect == over.rect
    shown = np.frombuffer(over.screenshot_as_png, np.uint8)
    page.execute_script(
        "const slider = document.querySelector('#strength'); slider.value = 0;"
        "slider.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert over.value_of_css_property("opacity") == "0"
    assert not np.array_equal(shown, np.frombuffer(over.screenshot_as_png, np.uint8))


def test_orders_by_score(page: webdriver.Chrome) -> None:
    button = page.find_element(By.CSS_SELECTOR, "[data-order=score]")
    button.click()
    scores = [float(item.get_attribute("data-score")) for item in page.find_elements(By.CSS_SELECTOR, ".scan")]
    assert scores == sorted(scores, reverse=True)
    assert set(names(page)[:2]) == {"lesion", "sub-1_ses-2"}
    assert button.get_attribute("aria-pressed") == "true"
    page.find_element(By.CSS_SELECTOR, "[data-order=name]").click()
    assert names(page) == ["a<b>", "lesion", "sub-1_ses-1", "sub-1_ses-2"]


def viewer(page: webdriver.Chrome, name: str) -> WebElement:
    """The slices of a scan, once they are drawn, with the focus."""
    found: WebElement = page.find_element(By.CSS_SELECTOR, f".viewer[aria-label='Slices of {name}']")
    page.execute_script("arguments[0].scrollIntoView(); arguments[0].focus()", found)
    WebDriverWait(page, 10).until(lambda _: shown(page, found, 0, "under").any())
    slider = found.find_element(By.CSS_SELECTOR, ".slice")
    script = "arguments[0].value = arguments[0].defaultValue; arguments[0].dispatchEvent(new Event('input'))"
    page.execute_script(script, slider)
    return found


def shown(page: webdriver.Chrome, section: WebElement, pane: int, kind: str = "over") -> np.ndarray:
    """Pixels [H, W, 4] of a canvas."""
    script = (
        "const pane = arguments[0].querySelectorAll('figure')[arguments[1]];"
        "const canvas = pane?.querySelectorAll('canvas')[arguments[2]];"
        "if (!canvas) return [0, 0, []]; return [canvas.height, canvas.width,"
        "[...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]]"
    )
    height, width, data = page.execute_script(script, section, pane, 1 if kind == "over" else 0)
    return np.array(data, np.uint8).reshape(height, width, 4) if data else np.zeros((1, 1, 4), np.uint8)


def place(section: WebElement) -> int:
    said = section.find_element(By.CSS_SELECTOR, ".panes figcaption").text
    found = re.fullmatch(r".*: slice (\d+) \(z −?\d+\.\d mm\)", said)
    assert found
    return int(found[1])


def test_the_keyboard_moves_through_the_slices(page: webdriver.Chrome) -> None:
    section = viewer(page, "lesion")
    first = place(section)
    assert abs(first - 16) < 6  # opens where it scores highest: at the lesion
    grey = shown(page, section, 0, "under")
    section.send_keys(Keys.ARROW_UP)
    assert place(section) == first + 1
    assert not np.array_equal(shown(page, section, 0, "under"), grey)
    section.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert place(section) == first - 1
    section.send_keys(Keys.HOME)
    lowest = place(section)
    section.send_keys(Keys.END)
    highest = place(section)
    section.send_keys(Keys.ARROW_UP)
    assert place(section) == highest
    section.send_keys(Keys.PAGE_DOWN)
    assert place(section) == highest - 10
    slider = section.find_element(By.CSS_SELECTOR, ".slice")
    assert int(slider.get_attribute("max")) == highest - lowest
    assert int(slider.get_attribute("value")) == highest - 10 - lowest
    assert "slice" in slider.get_attribute("aria-valuetext")
    page.execute_script("arguments[0].value = 3; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert place(section) == lowest + 3


def test_a_key_takes_the_map_off_and_on(page: webdriver.Chrome) -> None:
    section = viewer(page, "lesion")
    button, over = (section.find_element(By.CSS_SELECTOR, name) for name in (".map", "canvas.over"))
    for pressed, visibility in (("false", "hidden"), ("true", "visible")):
        section.send_keys("m")
        assert button.get_attribute("aria-pressed") == pressed
        assert over.value_of_css_property("visibility") == visibility
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "false"
    button.send_keys(Keys.SPACE)


def ml(section: WebElement) -> float:
    return float(section.find_element(By.CSS_SELECTOR, ".ml").text.split()[0])


def test_the_threshold_slider_says_how_many_ml_lie_above(page: webdriver.Chrome) -> None:
    section = viewer(page, "lesion")
    facts = page.find_element(By.CSS_SELECTOR, "[data-name=lesion] .facts").text
    told = float(re.search(r"([0-9.]+) ml", facts)[1])  # type: ignore[index]
    assert ml(section) == pytest.approx(told, rel=0.05, abs=0.2)
    slider = page.find_element(By.ID, "threshold")
    before, outlined = ml(section), (shown(page, section, 0)[..., :3] == (86, 180, 233)).all(axis=2).sum()
    assert outlined > 0
    slider.send_keys(Keys.END)
    assert ml(section) < before
    assert (shown(page, section, 0)[..., :3] == (86, 180, 233)).all(axis=2).sum() < outlined
    slider.send_keys(Keys.HOME)
    assert ml(section) > before
    assert page.find_element(By.CSS_SELECTOR, "output[for=threshold]").text


def test_the_prior_scan_lies_beside_at_the_same_place(page: webdriver.Chrome) -> None:
    section = viewer(page, "sub-1_ses-2")
    panes = section.find_elements(By.CSS_SELECTOR, ".panes figure")
    assert len(panes) == 2
    section.send_keys(Keys.HOME, Keys.PAGE_UP)
    captions = [item.find_element(By.TAG_NAME, "figcaption").text for item in panes]
    assert captions[0].startswith("sub-1_ses-2: slice")
    assert captions[1] == captions[0].replace("ses-2", "ses-1")
    assert "(prior: " in section.find_element(By.CSS_SELECTOR, ".ml").text
    section.send_keys("p")
    assert not panes[1].is_displayed()
    assert section.find_element(By.CSS_SELECTOR, ".prior").get_attribute("aria-pressed") == "false"
    section.send_keys("p")
    assert panes[1].is_displayed()
    alone = page.find_element(By.CSS_SELECTOR, ".viewer[aria-label='Slices of lesion']")
    assert not alone.find_elements(By.CSS_SELECTOR, ".prior")


def test_letters_and_scale_bar_lie_on_the_slices(page: webdriver.Chrome) -> None:
    section = viewer(page, "lesion")
    layers = section.find_element(By.CSS_SELECTOR, ".layers")
    assert [item.text for item in layers.find_elements(By.CSS_SELECTOR, ".side")] == ["R", "L", "A", "P"]
    ruler = layers.find_element(By.CSS_SELECTOR, ".ruler")
    assert ruler.text == "1 cm"
    grey = np.flatnonzero((shown(page, section, 0, "under")[..., 0] > 40).any(axis=0))
    body = (grey[-1] - grey[0]) / shown(page, section, 0).shape[1] * layers.rect["width"]
    assert ruler.rect["width"] / body * 64 == pytest.approx(10, rel=0.15)  # the widest slice measures 64 mm


def test_everything_that_is_operated_has_a_name_and_takes_the_focus(page: webdriver.Chrome) -> None:
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('input, button, .viewer')].filter(item =>"
        " !(item.labels?.[0]?.textContent || item.textContent || item.getAttribute('aria-label')).trim()"
        " || item.tabIndex < 0).length"
    )
    assert unnamed == 0
    hidden = "return [...document.querySelectorAll('canvas.over')].every(item => item.ariaHidden)"
    assert page.execute_script(hidden)
    assert page.get_log("browser") == []
