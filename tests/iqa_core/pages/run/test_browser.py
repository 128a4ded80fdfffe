"""The report in a real browser: sorting, filtering, disputed images, and no error in its console.

Runs where Chromium and its driver are found; with IQA_BROWSER=1, as `.ci/run` sets it, their absence
is a failure.
"""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.pages.run.page import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]
COUNT = 150
FAILED = 3
KINDS = ("blur", "noise", "<b>dark</b>")
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1280,900"),
    "--force-prefers-reduced-motion",  # else links scroll for a while, and clicks go astray
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a window, which logs its console and every request."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        absent = "chromium" if not chromium else "chromedriver"
        if os.environ.get("IQA_BROWSER"):
            pytest.fail(f"{absent} is not on PATH, but IQA_BROWSER is set")
        pytest.skip(f"{absent} is not on PATH (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of 147 images in a grid of colours and three failures, and the rows behind it."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(3)
    rows = []
    for i in range(COUNT):
        ok = i >= FAILED
        pairs = dict(zip(("quality", "noise"), map(float, rng.random(2)), strict=True))
        uri = f"{'set-a' if i % 2 else 'set-b'}/{i}.png"
        if ok:
            (folder / uri).parent.mkdir(exist_ok=True)
            Image.new("RGB", (40, 30), (i, 90, 255 - i)).save(folder / uri)
        rows.append(
            {
                "manifest_file": "m.parquet",
                "manifest_row": i,
                "uri": uri,
                "status": "ok" if ok else ("timeout", "empty", "timeout")[i],
                "error": None if ok else "<img src=x onerror=alert(1)>",
                "score": (pairs["quality"] + pairs["noise"]) / 2 if ok else None,
                "scores": pairs if ok else None,
                "width": 40,
                "height": 30,
                "kind": KINDS[i % 3],
                "level": i % 5,
            }
        )
    (folder / "scores").mkdir()
    types = {"score": pa.float32(), "status": pa.string(), "error": pa.string()}
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    pq.write_table(table, folder / "scores" / "part-0.parquet")
    output = folder / "report.html"
    write_report(str(folder / "scores"), str(output), manifest=str(folder), thumbnails=20)
    return output, rows


@pytest.fixture
def opened(browser, page):
    """The page just opened; afterwards its console has to be empty and nothing was asked for."""
    output, rows = page
    browser.get_log("performance")
    browser.get(output.as_uri())
    yield Page(browser, rows)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    here = [one["request"]["url"] for one in sent if one["documentURL"].startswith(output.as_uri())]
    assert output.as_uri() in here
    assert {url.partition(":")[0] for url in here} <= {"file", "data"}
    assert {url.partition("#")[0] for url in here if url.startswith("file")} == {output.as_uri()}


class Page:
    """What a person sees and does."""

    def __init__(self, browser, rows):
        self.browser, self.rows = browser, rows

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        return self.browser.find_element("css selector", selector)

    @property
    def count(self):
        return self.one("#count").text

    def heading(self, label):
        return next(
            th for th in self.all("#rows thead th[aria-sort]") if th.text.startswith(f"{label} ")
        )

    def cells(self, label):
        """Texts of a column, by its heading, as far as rows are shown."""
        place = [th.text.rsplit(" ", 1)[0] for th in self.all("#rows thead th")].index(label)
        script = (
            "return [...document.querySelectorAll('#rows tbody tr')]"
            ".map((row) => row.children[arguments[0]].innerText)"
        )
        return self.browser.execute_script(script, place)

    def numbers(self, label):
        texts = [text.replace("\N{MINUS SIGN}", "-") for text in self.cells(label)]
        return [float(text) for text in texts if text != "\N{EN DASH}"]

    def filter(self, label):
        """The fields of a filter, by its label."""
        for found in self.all("#filters .filter"):
            if found.find_element("css selector", "label, legend").text == label:
                return found.find_elements("css selector", "input, select")
        raise AssertionError(f"no filter {label}")

    def choose(self, label, option):
        from selenium.webdriver.support.select import Select

        field = Select(self.filter(label)[0])
        field.select_by_visible_text(
            next(o.text for o in field.options if o.text.startswith(option))
        )

    def expected(self, key):
        return [row[key] for row in self.rows if row["status"] == "ok"]


def test_rows_are_there_worst_first_with_their_pictures(opened):
    assert opened.count == "150 of 150 rows match, the first 100 shown"
    scores = opened.numbers("Score")
    assert scores == pytest.approx(sorted(opened.expected("score"))[:100], abs=6e-4)
    assert opened.heading("Score").get_attribute("aria-sort") == "ascending"
    pictures = opened.all("#rows tbody img")
    assert len(pictures) == 100
    assert pictures[0].get_property("naturalWidth") == 40
    opened.one("#more").click()
    assert opened.count == "150 of 150 rows shown"
    assert not opened.one("#more").is_displayed()
    # rows without a score are last, and what their errors hold is text
    assert opened.cells("Score")[-3:] == ["\N{EN DASH}"] * 3
    assert "<img src=x onerror=alert(1)>" in opened.cells("Image")[-1]


@pytest.mark.parametrize(
    ("label", "key"),
    [("Score", "score"), ("quality", "quality"), ("noise", "noise"), ("level", "level")],
)
def test_headings_sort_up_and_down(opened, label, key):
    values = opened.expected("scores") if key in ("quality", "noise") else opened.expected(key)
    values = sorted(value[key] if isinstance(value, dict) else value for value in values)
    if key == "level":
        values = sorted(row["level"] for row in opened.rows)
    opened.one("#more").click()
    others = [th for th in opened.all("#rows thead th[aria-sort]") if label not in th.text]
    for order in ("ascending", "descending"):
        heading = opened.heading(label)
        if heading.get_attribute("aria-sort") != order:
            heading.find_element("css selector", "button").click()
        assert opened.heading(label).get_attribute("aria-sort") == order
        assert {th.get_attribute("aria-sort") for th in others} == {"none"}
        if opened.one("#more").is_displayed():
            opened.one("#more").click()
        wanted = values if order == "ascending" else values[::-1]
        assert opened.numbers(label) == pytest.approx(wanted, abs=6e-4)
        if key != "level":
            assert opened.cells("Status")[-FAILED:] != ["ok"] * FAILED  # no value: last both ways


def test_the_keyboard_sorts(opened):
    from selenium.webdriver.common.keys import Keys

    button = opened.heading("quality").find_element("css selector", "button")
    button.send_keys(Keys.ENTER)
    assert opened.heading("quality").get_attribute("aria-sort") == "ascending"
    assert opened.browser.switch_to.active_element == button
    button.send_keys(Keys.SPACE)
    assert opened.heading("quality").get_attribute("aria-sort") == "descending"


def test_filters_leave_the_right_rows_and_the_count_says_how_many(opened):
    total = len(opened.rows)
    opened.choose("Status", "timeout")
    assert opened.count == f"2 of {total} rows shown"
    assert opened.cells("Status") == ["timeout"] * 2
    opened.one("#filters button[type=reset]").click()

    search = opened.filter("Text in the image's path")[0]
    search.send_keys("SET-A/1")
    wanted = [row["uri"] for row in opened.rows if row["uri"].startswith("set-a/1")]
    assert opened.count == f"{len(wanted)} of {total} rows shown"
    assert sorted(text.split("\n")[0] for text in opened.cells("Image")) == sorted(wanted)

    opened.choose("kind", "noise")  # both hold at once
    wanted = [r for r in opened.rows if r["uri"].startswith("set-a/1") and r["kind"] == "noise"]
    assert opened.count == f"{len(wanted)} of {total} rows shown"
    assert set(opened.cells("kind")) == {"noise"}
    opened.one("#filters button[type=reset]").click()
    assert opened.count.startswith(f"{total} of {total} rows match")

    least, most = opened.filter("Score")
    least.send_keys("0.4")
    most.send_keys("0.5")
    wanted = sum(0.4 <= score <= 0.5 for score in opened.expected("score"))
    assert 0 < wanted < 100
    assert opened.count == f"{wanted} of {total} rows shown"
    assert all(0.4 <= score <= 0.5 for score in opened.numbers("Score"))
    level = opened.filter("level")
    level[0].send_keys("4")
    wanted = sum(
        0.4 <= r["score"] <= 0.5 and r["level"] >= 4 for r in opened.rows if r["status"] == "ok"
    )
    assert opened.count == f"{wanted} of {total} rows shown"


def test_markup_in_a_kept_value_is_a_choice_like_any_other(opened):
    opened.choose("kind", "<b>dark</b> (50)")
    assert opened.count == "50 of 150 rows shown"
    assert set(opened.cells("kind")) == {"<b>dark</b>"}


def test_no_row_is_said_and_undone(opened):
    assert not opened.one("#nothing").is_displayed()
    opened.filter("Text in the image's path")[0].send_keys("nowhere")
    assert opened.count == "0 of 150 rows shown"
    assert opened.all("#rows tbody tr") == []
    assert "No row matches the filters" in opened.one("#nothing").text
    opened.one("#clear").click()
    assert not opened.one("#nothing").is_displayed()
    assert len(opened.all("#rows tbody tr")) == 100
    assert opened.filter("Text in the image's path")[0].get_attribute("value") == ""


def test_disputed_images_are_those_that_sorting_by_dispute_finds(opened):
    link = next(a for a in opened.all("nav a") if a.text == "Disputed between the pairs")
    link.click()
    top = "return document.getElementById('disputed').getBoundingClientRect().top"
    assert abs(opened.browser.execute_script(top)) < 5
    cards = [card.get_attribute("title").split("\n")[0] for card in opened.all("#disputed .card")]
    heading = opened.heading("Dispute of the pairs")
    heading.find_element("css selector", "button").click()
    heading.find_element("css selector", "button").click()
    assert opened.heading("Dispute of the pairs").get_attribute("aria-sort") == "descending"
    assert len(cards) == 4
    assert opened.cells("Image")[:4] == cards
    # and independently of the page: the rows whose two ranks lie farthest apart
    first, second = (
        np.argsort(np.argsort([pair[name] for pair in opened.expected("scores")]))
        for name in ("quality", "noise")
    )
    farthest = np.argsort(-np.abs(first - second), kind="stable")[:4]
    assert {opened.expected("uri")[i] for i in farthest} == set(cards)


def test_the_slider_says_what_a_threshold_keeps_and_gives_the_command(opened):
    from selenium.webdriver.common.keys import Keys

    scores = np.array(opened.expected("score"), np.float32)
    share, value = opened.one("#threshold-share"), opened.one("#threshold-value")
    value.clear()
    value.send_keys("0.6")
    kept = int((scores >= np.float32(0.6)).sum())
    percent = f"{100 * kept / len(scores):.1f}"
    told = f"keeps {kept} of {len(scores)} scored rows ({percent} %)"
    assert opened.one("#threshold-kept").text == told
    assert share.get_attribute("value") == percent
    command = opened.one("#threshold-command").text
    assert command.startswith("iqa select --scores /")
    assert command.endswith('/scores --where "score >= 0.6" --output selected.parquet')
    assert f"--top {float(percent):g}% " in opened.one("#share-command").text

    share.clear()
    share.send_keys("20")
    least = float(value.get_attribute("value"))
    assert (scores >= least - 5e-5).sum() == pytest.approx(0.2 * len(scores), abs=1)
    bars = opened.all("#scores .plot:first-of-type rect.below")
    assert 0 < len(bars) < len(opened.all("#scores .plot:first-of-type rect"))

    slider = opened.one("#threshold-range")
    before = float(slider.get_attribute("value"))
    slider.send_keys(Keys.ARROW_RIGHT)  # by the keyboard alone
    after = float(slider.get_attribute("value"))
    assert after > before
    assert float(value.get_attribute("value")) == pytest.approx(after, abs=1e-4)
    assert "percent" in slider.get_attribute("aria-valuetext")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(opened, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    opened.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        script = "return [document.documentElement.scrollWidth, window.innerWidth]"
        wide, screen = opened.browser.execute_script(script)
        assert screen == width
        assert wide <= width
    finally:
        opened.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_controls_have_names_and_the_page_its_landmarks(opened):
    nameless = """return [...document.querySelectorAll('input, select, button, [role=region], nav')]
      .filter((one) => !(one.labels && one.labels.length) && !one.getAttribute('aria-label')
        && !one.innerText.trim() && !one.hidden).map((one) => one.outerHTML)"""
    assert opened.browser.execute_script(nameless) == []
    for landmark in ("header", "main", "nav[aria-label]", "[role=search]", "[role=status]"):
        assert len(opened.all(landmark)) == 1
    assert opened.one("html").get_attribute("lang") == "en"


def test_without_a_script_the_page_is_read_all_the_same(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page[0].as_uri())
        assert "which this\nbrowser has not run" in page[0].read_text()
        told = browser.find_element("css selector", ".without-script")
        assert told.is_displayed()
        assert not browser.find_element("css selector", "#browse-tool").is_displayed()
        assert browser.find_element("css selector", "#sheet .card").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
