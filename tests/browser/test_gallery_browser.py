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

from dinodp.cli import main

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1180,900")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver (Debian: chromium, chromium-driver)"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """The gallery of two volumes that were scored and one that was not, with a name that needs escaping.

    The first by name is the last by score.
    """
    folder: Path = tmp_path_factory.mktemp("gallery")
    model = str(folder / "model.h5")
    assert main(["fit", str(healthy_folder(folder / "healthy")), "--out", model, *FAST_FIT, *WINDOW]) == 0
    save(folder / "new/a<b>.nii.gz", head(8))
    save(folder / "new/lesion.nii.gz", head(7, lesion=True))
    (folder / "new/torn.nii.gz").write_bytes(b"x")
    assert main(["predict", str(folder / "new"), "--model", model, "--out", str(folder / "out")]) == 1
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
    assert names(page) == ["a<b>", "lesion"]
    first = page.find_element(By.CSS_SELECTOR, ".scan")
    assert len(first.find_elements(By.CSS_SELECTOR, "figure")) == 3
    assert [side.text for side in first.find_elements(By.CSS_SELECTOR, ".side")[:4]] == ["R", "L", "A", "P"]
    assert re.match(r"slice \d+ \(z −?\d+\.\d mm\), score ", first.find_element(By.TAG_NAME, "figcaption").text)
    assert len(first.find_elements(By.CSS_SELECTOR, "tbody tr")) >= 1
    assert "torn.nii.gz is" in page.find_element(By.ID, "failed").text


def test_letters_lie_at_the_sides_and_the_mark_on_the_colours(page: webdriver.Chrome) -> None:
    layers = page.find_element(By.CSS_SELECTOR, ".layers")
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
    assert names(page) == ["lesion", "a<b>"]
    assert button.get_attribute("aria-pressed") == "true"
    page.find_element(By.CSS_SELECTOR, "[data-order=name]").click()
    assert names(page) == ["a<b>", "lesion"]
