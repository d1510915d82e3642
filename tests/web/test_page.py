"""The page in a real browser: typing, comparing, errors, what data say shown as text, the width of a phone."""

import os
import shutil

import pandas as pd
import pytest
from made_models import MARKUP, SURE, made, running

from stages.common.texts import clean
from stages.web import server

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser's driver is in requirements-dev.txt")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")

LIMITS = server.Limits(texts=200, characters=500, megabytes=1)


@pytest.fixture(scope="module")
def url():
    """A server of a model with three classes and abstention, one of pairs, one of several labels, one of numbers, one
    that is judged by its log loss."""
    models = [
        made(abstention=SURE),
        made(name="pairs", columns=("premise", "claim")),
        made("multi_label", name="several"),
        made("regression", name="numbers", untouched=False),
        made(name="losses"),
    ]
    models[-1].facts["test"] = {"score": "log loss", "percent": False, "value": 0.3127, "low": 0.25, "high": 0.4}
    app = server.create({model.name: model for model in models}, limits=LIMITS)
    with running(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, url):
    """The page, opened; a request to elsewhere, a dialog, an error of the script or a refused style fails the test."""
    context = browser.new_context()
    context.set_default_timeout(10_000)
    opened, faults = context.new_page(), []
    opened.on(
        "request",
        lambda request: None if request.url.startswith((url, "data:", "blob:")) else faults.append(request.url),
    )
    opened.on("dialog", lambda dialog: [faults.append(dialog.message), dialog.dismiss()])
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda told: faults.append(told.text) if "Content Security" in told.text else None)
    opened.goto(url)
    sync_api.expect(opened.locator("#facts dd")).to_have_count(4)
    yield opened
    context.close()
    assert faults == []


def classify(page, text):
    page.get_by_label("Your text").fill(text)
    page.get_by_role("button", name="Classify").click()


def test_typed_texts_get_their_answers_one_a_line_or_as_a_single_text(page):
    classify(page, "A film.\n\nAnother one, longer.")
    sync_api.expect(page.locator("article")).to_have_count(2)
    model = made(abstention=SURE)
    for text, card in zip(("A film.", "Another one, longer."), page.locator("article").all(), strict=True):
        (answer,) = model.tuned.answers([text]).to_dict("records")
        assert card.locator(".text").inner_text() == text
        assert card.locator("strong").inner_text() == answer["label"]
        assert card.locator(".given .share").inner_text() == f"{100 * answer['probability']:.1f}\u00a0%"
        assert card.locator(".badge").count() == answer["abstain"]
    page.get_by_label("One text a line").uncheck()
    page.keyboard.press("Control+Enter")
    sync_api.expect(page.locator("article")).to_have_count(1)


@pytest.mark.parametrize(
    ("model", "fact"),
    [
        ("default", "Accuracy on test rows 90.0 % 95 % interval 80.0 to 95.0 %"),
        ("losses", "Log loss on test rows 0.3127 95 % interval 0.2500 to 0.4000"),
    ],
)
def test_of_the_scores_on_test_rows_only_shares_are_in_percent(page, model, fact):
    page.get_by_label("Model", exact=True).select_option(model)
    assert page.locator("#facts div").first.inner_text().split() == fact.split()


def test_the_untouched_model_is_shown_beside_the_tuned_one(page):
    page.get_by_label("Compare with untouched").check()
    classify(page, "A film.")
    sync_api.expect(page.locator("article .who")).to_have_text(["Tuned", "Untouched"])
    tuned, untouched = page.locator("article strong").all_inner_texts()
    assert tuned != untouched == made().untouched.answers(["A film."])["label"][0]


def test_the_words_that_mattered_are_shaded_and_the_text_stays_whole(page):
    page.get_by_label("Words that mattered").check()
    classify(page, f"A film of note, {MARKUP}")
    sync_api.expect(page.locator("article .text")).to_have_text([f"A film of note, {MARKUP}"])
    assert page.locator("article .text mark").count() >= 2
    assert page.locator("article .key").inner_text().startswith("for and against ")
    assert page.locator("article script").count() == 0


def test_what_texts_and_classes_say_is_shown_as_text(page):
    classify(page, f"{MARKUP}\n<img src=x onerror=alert(2)>")
    sync_api.expect(page.locator("article .text")).to_have_text([MARKUP, "<img src=x onerror=alert(2)>"])
    assert MARKUP in page.locator("article").first.locator(".bars").inner_text()
    assert MARKUP in page.locator("h1").inner_text()
    assert page.locator("article img, article script, h1 script").count() == 0


def test_what_is_wrong_is_said_in_plain_words(page):
    page.get_by_role("button", name="Classify").click()
    sync_api.expect(page.get_by_role("alert")).to_have_text(["There is no text yet. Type or paste one above."])
    classify(page, "x" * 501)
    sync_api.expect(page.get_by_role("alert")).to_have_text(
        ["text 1: expected at most 500 characters, found 501; cut it"]
    )
    page.context.set_offline(True)
    classify(page, "A film.")
    sync_api.expect(page.get_by_role("alert")).to_have_text(["The server does not answer. Is it still running?"])
    page.context.set_offline(False)
    classify(page, "A film.")
    sync_api.expect(page.locator("article")).to_have_count(1)
    assert page.get_by_role("alert").count() == 0


def test_each_model_has_its_own_boxes_and_kind_of_answer(page):
    page.get_by_label("Model", exact=True).select_option("pairs")
    page.get_by_label("premise").fill("A man sleeps.")
    page.get_by_label("claim").fill("He rests.")
    page.get_by_role("button", name="Classify").click()
    sync_api.expect(page.locator("article .text")).to_have_text(["A man sleeps.", "He rests."])
    page.get_by_label("Model", exact=True).select_option("several")
    classify(page, "A film.")
    sync_api.expect(page.locator("article .given")).to_have_count(3)
    page.get_by_label("Model", exact=True).select_option("numbers")
    assert not page.get_by_label("Compare with untouched").is_visible()
    assert page.locator("#footer").inner_text() == "Reads up to 64 tokens of a text."
    classify(page, "A film.")
    sync_api.expect(page.locator("article strong")).to_have_text(
        [f"{made('regression').tuned.answers(['A film.'])['value'][0]:.4g}"]
    )


def given(page, name, content):
    page.locator("#file").set_input_files({"name": name, "mimeType": "text/plain", "buffer": content.encode()})


def test_a_file_is_answered_and_saved(page, tmp_path):
    table = pd.DataFrame({"text": [f'Text "{number}",\nof two lines' for number in range(150)], "id": range(150)})
    given(page, "my rows.csv", table.to_csv(index=False))
    sync_api.expect(page.locator("#summary")).to_have_text("150 rows answered")
    assert page.locator("#done").text_content() == "150 of 150 rows"
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save my rows.answers.csv").click()
    saved.value.save_as(tmp_path / "answers.csv")
    assert saved.value.suggested_filename == "my rows.answers.csv"
    back = pd.read_csv(tmp_path / "answers.csv")
    assert back["text"].tolist() == table["text"].tolist()
    expected = made().tuned.answers([clean(text) for text in table["text"]])
    assert back["label"].tolist() == expected["label"].tolist()


def test_rows_of_tabs_are_counted_though_their_quotes_are_ordinary_characters(page):
    given(page, "rows.tsv", 'text\nA 12" record.\n' + "A film.\n" * 20)
    sync_api.expect(page.locator("#summary")).to_have_text("21 rows answered")
    assert page.locator("#done").text_content() == "21 of 21 rows"


def test_what_is_wrong_with_a_file_is_said_and_the_next_one_is_answered(page):
    for name, content, message in (
        ("rows.csv", "text,b\nx,2\ny\n", "rows.csv: expected rows that can be read, found in line 3"),
        ("<b>.xlsx", "x", "_b_.xlsx: expected a file ending in .csv, .tsv, .jsonl; convert it"),
        ("large.csv", "text\n" + "x\n" * 600_000, "large.csv is larger than 1 MB. Send it in parts."),
    ):
        given(page, name, content)
        sync_api.expect(page.locator("#file-wrong")).to_contain_text(message)
        assert not page.locator("#ready").is_visible() and not page.locator("#progress").is_visible()
    given(page, "rows.jsonl", '{"text": "A film."}\n')
    sync_api.expect(page.locator("#summary")).to_have_text("1 row answered")
    assert not page.locator("#file-wrong").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.get_by_label("Compare with untouched").check()
    page.get_by_text("From a program").click()
    classify(page, "A film.\n" + "x" * 400)
    sync_api.expect(page.locator("article")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
