"""The report in a real browser: it opens cleanly, and slider, sorting, filter and keyboard do what they say."""

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from synthetic_run import CONFIG, DATASET, map_of, write_run

from dinodp.datasets.manifest import read_manifest, select
from dinodp.images import resize_mask
from dinodp.report.case_choice import lesion_mask
from dinodp.report.page import write_report
from dinodp.report.run_files import ReportFiles

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900")
READY = "return [...document.querySelectorAll('.gallery')].every(section => section.dataset.ready)"
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver (Debian: chromium, chromium-driver)"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(files: ReportFiles, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, files, CONFIG, "snakemake --cores 2", "unknown")
    return path.as_uri()


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> webdriver.Chrome:
    """The page, freshly loaded and drawn."""
    return opened(browser, address)


def opened(browser: webdriver.Chrome, address: str) -> webdriver.Chrome:
    browser.get_log("browser")  # forget the messages of earlier pages
    browser.get(address)
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(READY))
    return browser


def find(page: webdriver.Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def slide(page: webdriver.Chrome, value: int) -> None:
    page.execute_script(
        "const slider = document.querySelector('.threshold input'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input', {bubbles: true}))",
        value,
    )


def pictures(page: webdriver.Chrome) -> list[str]:
    """What every overlay shows, as an address of a picture."""
    script = "return [...document.querySelectorAll('.over')].map(canvas => canvas.toDataURL())"
    return list(page.execute_script(script))


def pixels(page: webdriver.Chrome, selector: str) -> np.ndarray:
    """The pixels [H, W, 4] of the first canvas that matches."""
    canvas = page.execute_script(
        "const c = document.querySelector(arguments[0]);"
        "return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]",
        selector,
    )
    return np.array(canvas[2], dtype=np.uint8).reshape(canvas[0], canvas[1], 4)


def names(page: webdriver.Chrome) -> list[str]:
    return [item.text for item in page.find_elements(By.CSS_SELECTOR, ".case strong")]


def dices(page: webdriver.Chrome) -> dict[str, float | None]:
    """The Dice under each picture, None where there is none."""
    found = {}
    for case in page.find_elements(By.CSS_SELECTOR, ".case"):
        text = case.find_element(By.CSS_SELECTOR, ".live").text
        name = case.find_element(By.TAG_NAME, "strong").text
        found[name] = float(text.split()[1].rstrip(",")) if text.startswith("Dice") else None
    return found


def levels(page: webdriver.Chrome, model: int = 0) -> list[dict[str, Any]]:
    content = json.loads(find(page, "#data").get_attribute("textContent"))
    (gallery,) = content["galleries"].values()
    return list(gallery["models"][model]["levels"])


def column(page: webdriver.Chrome, table: str, index: int) -> list[str]:
    return [cell.text for cell in page.find_elements(By.CSS_SELECTOR, f"{table} tbody td:nth-child({index})")]


def numpy_dice(files: ReportFiles, model: int, name: str, threshold: float, shape: tuple[int, int]) -> float:
    frame = select(read_manifest(files.manifests[DATASET]), "test")
    row = int(np.flatnonzero([Path(image).stem == name for image in frame["image"]])[0])
    above = map_of(files, model, row, shape) > threshold
    mask = resize_mask(lesion_mask(frame.iloc[row], "gt0").astype(np.uint8), shape) > 0
    return float(2 * (mask & above).sum() / (mask.sum() + above.sum()))


def test_opens_without_a_console_message_or_a_request(page: webdriver.Chrome) -> None:
    assert page.get_log("browser") == []
    assert page.execute_script(
        "return performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:')).length"
    ) == 0  # fmt: skip
    assert page.title == "Synthetic <run>"


@pytest.mark.parametrize("model", [0, 1])
def test_slider_changes_overlay_and_dice_as_numpy_has_it(
    page: webdriver.Chrome, files: ReportFiles, model: int
) -> None:
    page.find_elements(By.CSS_SELECTOR, ".models input")[model].click()
    seen = []
    for share in (0.2, 0.5, 0.7):
        steps = levels(page, model)
        level = int(share * (len(steps) - 1))
        slide(page, level)
        shown = dices(page)
        assert all((value is None) == ("normal" in name) for name, value in shown.items())
        for name, value in shown.items():
            if value is not None:
                case = f"//figure[.//strong='{name}']//canvas"
                canvas = page.find_element(By.XPATH, case)
                shape = int(canvas.get_attribute("height")), int(canvas.get_attribute("width"))
                expected = numpy_dice(files, model, name, steps[level]["threshold"], shape)
                assert value == pytest.approx(expected, abs=0.002)
        assert f"Dice {steps[level]['dice']:.3f}" in find(page, ".reading").text
        seen.append((pictures(page), list(shown.values())))
    for (before, dice_before), (after, dice_after) in pairwise(seen):
        assert sum(one != other for one, other in zip(before, after, strict=True)) > len(before) / 2
        assert dice_before != dice_after


def test_overlay_colours_are_hits_false_alarms_and_misses(page: webdriver.Chrome) -> None:
    slide(page, 20)
    with_overlay = pixels(page, ".over")
    find(page, ".overlay").click()
    find(page, ".outline").click()
    plain = pixels(page, ".over")
    assert (plain[..., 0] == plain[..., 2]).mean() > 0.9  # a grey image
    assert (with_overlay != plain).any(axis=-1).mean() > 0.05
    find(page, ".outline").click()
    outlined = (pixels(page, ".over") == [86, 180, 233, 255]).all(axis=-1)
    assert 0 < outlined.sum() < outlined.size / 10


def test_buttons_set_the_calibrated_thresholds(page: webdriver.Chrome) -> None:
    for button in page.find_elements(By.CSS_SELECTOR, "[data-point]"):
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        rate = button.text.split()[1]
        assert f"{float(rate):.0f}" in find(page, ".reading").text
        text = find(page, ".reading").text
        shown = float(text.split("of test patches, ")[1].split(" %")[0])
        assert shown == pytest.approx(float(rate), abs=0.5)


def test_marker_runs_along_the_curves(page: webdriver.Chrome) -> None:
    places = []
    for level in (10, 60):
        slide(page, level)
        step = levels(page)[level]
        marker = find(page, ".panel .marker")
        assert float(marker.get_attribute("cx")) == pytest.approx(200 * step["fpr"], abs=0.1)
        assert float(marker.get_attribute("cy")) == pytest.approx(200 * (1 - step["recall"]), abs=0.1)
        lower = find(page, ".marker[data-kind=pr]")
        height = min(1, step["precision"] / float(lower.get_attribute("data-top")))
        assert float(lower.get_attribute("cy")) == pytest.approx(200 * (1 - height), abs=0.1)
        places.append(marker.get_attribute("cx"))
    assert places[0] != places[1]


def test_above_the_highest_score_there_is_nothing(page: webdriver.Chrome) -> None:
    slide(page, len(levels(page)) - 1)
    text = find(page, ".reading").text
    assert "Dice 0.000, recall 0.000, precision –, FPR 0.00 %" in text
    assert not find(page, ".marker[data-kind=pr]").is_displayed()
    assert find(page, ".marker[data-kind=roc]").is_displayed()
    assert page.get_log("browser") == []


def test_another_model_shows_its_own_maps(page: webdriver.Chrome) -> None:
    before = pixels(page, ".heat")
    page.find_elements(By.CSS_SELECTOR, ".models input")[1].click()
    assert (pixels(page, ".heat") != before).any()
    assert find(page, "[data-point='FPR 5 %']").get_attribute("aria-pressed") == "true"


def unfold_headline(page: webdriver.Chrome) -> None:
    page.execute_script("document.querySelector('#headline details').open = true")


def test_the_headline_fits_on_one_screen_and_its_details_are_folded(page: webdriver.Chrome) -> None:
    height = page.execute_script("return document.querySelector('#overview-table').getBoundingClientRect().height")
    assert height < page.execute_script("return window.innerHeight")
    assert not find(page, "#headline-table").is_displayed()
    unfold_headline(page)
    assert find(page, "#headline-table").is_displayed()


def test_tables_sort_by_number_and_back(page: webdriver.Chrome) -> None:
    unfold_headline(page)
    find(page, "#headline-table th:nth-child(5) button").click()
    values = [float(text.split()[0]) for text in column(page, "#headline-table", 5)]
    assert values == sorted(values)
    assert find(page, "#headline-table th:nth-child(5)").get_attribute("aria-sort") == "ascending"
    find(page, "#headline-table th:nth-child(5) button").click()
    assert [float(text.split()[0]) for text in column(page, "#headline-table", 5)] == values[::-1]
    find(page, "#headline-table th:nth-child(7) button").click()  # differences; rows without one come last
    differences = [text.replace("−", "-") for text in column(page, "#headline-table", 7)]
    known = [float(text) for text in differences if text != "–"]
    assert known == sorted(known)
    assert "–" not in differences[: len(known)]


def test_cases_sort(page: webdriver.Chrome) -> None:
    before = names(page)
    find(page, "[data-order=dice]").click()
    falling = [value for value in dices(page).values() if value is not None]
    assert falling == sorted(falling, reverse=True)
    find(page, "[data-order=dice]").click()
    rising = [value for value in dices(page).values() if value is not None]
    assert rising == falling[::-1]
    assert find(page, "[data-order=dice]").get_attribute("aria-pressed") == "true"
    find(page, "[data-order=name]").click()
    assert names(page) == sorted(before)
    find(page, "[data-order=group]").click()
    assert names(page) == before


def test_group_order_starts_with_the_models_best_case(page: webdriver.Chrome) -> None:
    for number in (0, 1):
        page.find_elements(By.CSS_SELECTOR, ".models input")[number].click()
        tags = [tag.text for tag in page.find_elements(By.CSS_SELECTOR, ".tag")]
        assert tags[:9] == ["best Dice"] * 3 + ["median Dice"] * 3 + ["worst Dice"] * 3
        shown = list(dices(page).values())
        assert shown[:3] == sorted(shown[:3], reverse=True)
        assert max(shown[6:9]) <= min(shown[:3])


def test_large_pictures_fill_the_width(page: webdriver.Chrome) -> None:
    small = find(page, ".over").rect["width"]
    find(page, ".large").click()
    assert find(page, ".over").rect["width"] > 1.8 * small


def test_filter_keeps_the_rows_with_all_words(page: webdriver.Chrome) -> None:
    find(page, "#all summary").click()
    find(page, "#filter").send_keys("dpmm auroc")
    shown = [row.text for row in page.find_elements(By.CSS_SELECTOR, "#all-table tbody tr") if row.is_displayed()]
    assert len(shown) == 1
    assert "dpmm_diag" in shown[0]
    assert find(page, "#filter-count").text == "1 rows"


def test_everything_can_be_done_from_the_keyboard(page: webdriver.Chrome) -> None:
    keys = ActionChains(page)
    keys.send_keys(Keys.TAB).perform()
    assert page.switch_to.active_element.get_attribute("class") == "skip"
    reached = []
    for _ in range(80):
        keys.send_keys(Keys.TAB).perform()
        active = page.switch_to.active_element
        reached.append((active.tag_name, active.get_attribute("type"), active.text))
        if active.get_attribute("type") == "range":
            break
    assert ("button", "button", "Model") in reached
    assert ("input", "radio", "") in reached
    assert reached[-1][1] == "range"
    slider, before = page.switch_to.active_element, pixels(page, ".over")
    value, text = int(slider.get_attribute("value")), slider.get_attribute("aria-valuetext")
    ActionChains(page).send_keys(Keys.ARROW_LEFT * 8).perform()
    assert int(slider.get_attribute("value")) == value - 8
    assert slider.get_attribute("aria-valuetext") != text
    assert (pixels(page, ".over") != before).any()
    unfold_headline(page)
    find(page, "#headline-table th:nth-child(5) button").send_keys(Keys.ENTER)
    assert find(page, "#headline-table th:nth-child(5)").get_attribute("aria-sort") == "ascending"
    find(page, ".models input").send_keys(Keys.ARROW_RIGHT)
    assert page.find_elements(By.CSS_SELECTOR, ".models input")[1].is_selected()


def test_controls_have_names(page: webdriver.Chrome) -> None:
    page.execute_script("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    nameless = [
        element.get_attribute("outerHTML")[:80]
        for element in page.find_elements(By.CSS_SELECTOR, "button, input, canvas, svg[role=img], main img, table")
        if not element.accessible_name
    ]
    assert nameless == []


def test_nothing_sticks_out_of_a_laptop_screen(page: webdriver.Chrome) -> None:
    width = page.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0


def test_printed_page_shows_cases_and_hides_controls(page: webdriver.Chrome) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not find(page, "nav").is_displayed()
        assert not find(page, ".threshold input").is_displayed()
        assert find(page, ".over").is_displayed()
        assert find(page, ".reading").text.startswith("score > ")
        style = "const s = getComputedStyle(document.querySelector(arguments[0])); return [s.display, s.breakInside]"
        assert page.execute_script(style, "#headline-table tbody tr") == ["table-row", "avoid"]
        assert page.execute_script(style, ".case")[1] == "avoid"
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_masks_there_is_no_dice(browser: webdriver.Chrome, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", write_run(tmp_path, masks=False), CONFIG, "snakemake", "unknown")
    page = opened(browser, (tmp_path / "report.html").as_uri())
    assert page.get_log("browser") == []
    assert set(dices(page).values()) == {None}
    before = pixels(page, ".over")
    slide(page, 5)
    assert (pixels(page, ".over") != before).any()
