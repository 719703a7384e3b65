"""The HTML report: whole in itself, true to the scores, safe with any text, and working in a real browser."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import textdiff
from textdiff.console import printable
from textdiff.outputs.colours import class_colours
from textdiff.pipeline.reporting.caveats import caveats
from textdiff.pipeline.reporting.html_page import data_uri, render_page
from textdiff.tests import browser

PIXELS = (
    "(() => {{ const copy = new OffscreenCanvas(128, 128).getContext('2d', {{willReadFrequently: true}});"
    " copy.drawImage({}, 0, 0); return Array.from(copy.getImageData(0, 0, 128, 128).data); }})()"
)
NASTY = """{}</script><script>window.broken = 1</script><img src=x onerror="window.broken = 2">"'&\u2028{{{{data}}}}"""


class Parsed(HTMLParser):
    """Scripts and styles with their text, and every attribute that could fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside, self.parts, self.fetched, self.tags, self.policy = None, [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "srcset", "action") or (tag == "link")]
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        if tag in ("script", "style"):
            self.inside = (tag, attributes.get("type"))
            self.parts.append([*self.inside, ""])

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[0]:
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.parts[-1][2] += data

    def data(self):
        (found,) = (text for _, kind, text in self.parts if kind == "application/json")
        return json.loads(found)


def decode(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/webp;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.fixture(scope="module")
def scored(tmp_path_factory, make_lvit_once, tiny_backbone) -> textdiff.Run:
    root = tmp_path_factory.mktemp("report")
    make_lvit_once(root / "data", n_train=3, n_val=1, n_test=5, size=64, text=NASTY)
    cache = textdiff.extract(
        "monuseg",
        data=root / "data",
        cache=root / "c.zarr",
        backbone=tiny_backbone,
        text_encoder="none",
        image_size=64,
        blocks=(4, 8),
    )
    run = textdiff.fit(cache, variant="no-text", epochs=12, learning_rate=1e-3, runs=root / "runs")
    textdiff.score(run)
    return run


@pytest.fixture(scope="module")
def page(scored) -> Path:
    return textdiff.report(scored)


def test_the_page_needs_nothing_but_itself(page):
    parsed = Parsed(page.read_text("utf-8"))
    assert [tag for tag in parsed.tags if tag in ("script", "style", "link", "img", "iframe")] == [
        "style",
        "script",
        "script",
    ]
    assert parsed.fetched == []
    style, _, script = (text for *_, text in parsed.parts)
    assert "@import" not in style
    assert "url(" not in style
    for text, rule in ((style, "style-src"), (script, "script-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in parsed.policy
    assert "default-src 'none'" in parsed.policy
    assert "innerHTML" not in script


def test_texts_come_back_as_they_were(page, scored):
    data = Parsed(page.read_text("utf-8")).data()
    assert data["images"] == scored.scores()["images"]
    assert "</script><script>" in data["images"][0]["text"]
    assert "{{data}}" in data["images"][0]["text"]
    assert {image["id"] for image in data["training"]} == set(scored.config["train_ids"])
    assert data["log"] == scored.log()


def test_a_title_with_markup_stays_text():
    page = render_page("</title><script>1</script>{{data}}", {"a": "{{title}}"})
    parsed = Parsed(page)
    assert parsed.tags.count("script") == 2
    assert parsed.data() == {"a": "{{title}}"}


def test_pictures_show_what_was_scored(page, scored):
    data = Parsed(page.read_text("utf-8")).data()
    cache = scored.open_cache()
    rows = {entry.id: row for row, entry in enumerate(cache.rows)}
    assert set(data["pictures"]) == {image["id"] for image in data["images"]}
    for image in data["images"]:
        shown = data["pictures"][image["id"]]
        truth, prediction = decode(shown["truth"]), decode(shown["prediction"])
        dice = 2 * (truth & prediction).sum() / (truth.sum() + prediction.sum())
        assert dice == pytest.approx(image["dice_clean"])
        difference = decode(shown["image"]).astype(float) - cache.image(rows[image["id"]])
        assert np.abs(difference).mean() < 12
        assert decode(shown["entropy"])[..., 0].mean() / 255 == pytest.approx(shown["meanEntropy"], abs=0.02)


def test_a_mask_is_stored_exactly_and_in_one_bit():
    mask = np.random.default_rng(0).random((37, 53)) > 0.5
    uri = data_uri(mask, "mask")
    assert (decode(uri) == mask).all()
    assert len(uri) < 37 * 53 / 8 * 4 / 3 + 300


def test_a_limit_keeps_the_best_and_the_worst_and_all_rows(scored, tmp_path, textdiff_once):
    out = tmp_path / "few.html"
    result = textdiff_once(tmp_path, "report", "--run", str(scored.path), "--images", "2", "--out", str(out))
    assert result.stdout.strip() == str(out)
    data = Parsed(out.read_text("utf-8")).data()
    order = sorted(data["images"], key=lambda image: -image["dice_clean"])
    assert set(data["pictures"]) == {order[0]["id"], order[-1]["id"]}
    assert len(data["images"]) == 5


def test_the_same_run_gives_the_same_page(scored, page, tmp_path):
    assert textdiff.report(scored, out=tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_split_that_was_not_scored_is_named_with_the_command(scored, textdiff_once, tmp_path):
    result = textdiff_once(tmp_path, "report", "--run", str(scored.path), "--split", "val", status=2)
    assert f"textdiff score --run {scored.path} --split val" in result.stderr


def summary(**changes):
    interval = {"mean": 0.8, "low": 0.78, "high": 0.82, "n": 100}
    return {
        "split": "test",
        "variant": "full",
        "labels": 5,
        "about": {"dataset": "own", "backbone": "adm-256", "text_encoder": "clinical-biobert", "protocol": "paper"},
        "scores": {"clean": {"dice": interval | changes.pop("dice", {})}},
        "primary": "clean",
        "model": "textdiff",
        "present": {"foreground": 1},
        "changed_since_fit": [],
        "too_large": [],
        "published": [],
        "published_left_out": "",
        "trust": {"reliability": [{"error": 0.1}]},
        "images": [{"dice_clean": 0.8}],
    } | changes


PUBLISHED = [{"method": "TextDiff", "labels": 5}]
ABOUT = {"dataset": "monuseg", "backbone": "nano-he", "text_encoder": "clinical-biobert", "protocol": "clean"}
GOOD = [{"epoch": epoch + 1, "val_dice": value} for epoch, value in enumerate([0.5] * 10 + [0.8, 0.7])]


@pytest.mark.parametrize(
    ("changes", "log", "warning"),
    [
        ({"dice": {"n": 14}}, GOOD, "over 14 images"),
        ({"dice": {"low": 0.7, "high": 0.9}}, GOOD, "spans 20.0 points"),
        ({"dice": {"low": None, "high": None, "n": 1}}, GOOD, "One image has no interval"),
        ({"images": [{"dice_clean": 0}]}, GOOD, "Dice of 0"),
        ({"about": {"dataset": "phantom"}}, GOOD, "Synthetic data"),
        ({"split": "train"}, GOOD, "training split"),
        ({"split": "val"}, GOOD, "validation split"),
        ({}, [{"epoch": 1, "val_dice": 0.95}], "Validation unlike test"),
        ({}, [{"epoch": 1, "val_dice": 0.8}, *GOOD[:10]], "epoch 1 of 11"),
        ({"present": {"nucleus": 1, "gland": 0}}, GOOD, "gland is in 0 of 1 images"),
        ({"changed_since_fit": ["a: the mask", "b: the text"]}, GOOD, "a: the mask; 1 more"),
        ({"trust": {"reliability": [{"error": 0.01}, {"error": 0.03}]}}, GOOD, "1.0 % without it, 3.0 % with it"),
        ({"published": PUBLISHED, "about": ABOUT}, GOOD, "nano-he (adm-256)"),
        ({"published": PUBLISHED, "about": ABOUT, "labels": 7}, GOOD, "had 5"),
    ],
)
def test_each_doubt_is_said(changes, log, warning):
    config = {"git": "abc", "val_ids": ["v"] * 9, "fit": {"select": "best"}}
    assert [caveat.level for caveat in caveats(config, summary(), GOOD)] == ["note"]
    found = caveats(config, summary(**changes), log)
    assert any(caveat.level == "warning" and warning in caveat.text for caveat in found), found


def test_weights_without_validation_or_with_little_are_said():
    config = {"git": None, "val_ids": [], "fit": {}}
    assert any("last epoch" in caveat.text for caveat in caveats(config, summary(), [{"epoch": 1.0}]))
    found = caveats({"git": "abc+", "val_ids": ["v"], "fit": {}}, summary(), GOOD)
    assert any("1 validation image only" in caveat.text for caveat in found)
    assert any("uncommitted" in caveat.text for caveat in found)
    found = caveats({"git": "abc", "val_ids": ["v"], "fit": {"select": "last"}}, summary(), GOOD)
    assert not any("selected on" in caveat.text for caveat in found)
    assert any("70.0" in caveat.text and caveat.level == "warning" for caveat in found)


@pytest.fixture(scope="module")
def view(page, tmp_path_factory):
    found = browser.find_browser()
    if found is None:
        pytest.skip("no Chromium or Chrome on the path")
    with browser.Page(found, tmp_path_factory.mktemp("profile")) as opened:
        opened.open(page)
        opened.wait("document.querySelector('#stage').dataset.shown !== undefined")
        yield opened
        assert opened.problems() == []


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory, tiny_backbone) -> textdiff.Run:
    """A run on squares of two classes, one of which has a name that is hard to show."""
    root = tmp_path_factory.mktemp("classes")
    (root / "data/images").mkdir(parents=True)
    (root / "data/masks").mkdir()
    random, lines = np.random.default_rng(0), ["image,text,split,group"]
    for index, split in enumerate(["train", "train", "val", "test", "test"]):
        mask = np.zeros((64, 64), np.uint8)
        mask[4 + 4 * index : 24 + 4 * index, 6:26], mask[20:44, 32 + index : 56] = 1, 2
        noise = random.integers(0, 60, (64, 64, 3))
        pixels = np.array([[230, 220, 230], [90, 60, 140], [96, 60, 140]])[mask] - noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"data/images/{index}.png")
        Image.fromarray(mask).save(root / f"data/masks/{index}.png")
        lines.append(f"{index},Text {index}.,{split},patient {index}")
    (root / "data/texts.csv").write_text("\n".join(lines))
    cache = textdiff.extract(
        "folder",
        data=root / "data",
        cache=root / "c.zarr",
        backbone=tiny_backbone,
        text_encoder="none",
        image_size=64,
        blocks=(4, 8),
        classes=("nucleus", NASTY),
    )
    run = textdiff.fit(cache, variant="no-text", recipe="default", epochs=8, learning_rate=3e-3, runs=root / "runs")
    textdiff.score(run)
    return run


@pytest.fixture(scope="module")
def two_classes_page(two_classes) -> Path:
    return textdiff.report(two_classes)


def test_classes_keep_their_numbers_scores_and_colours(two_classes, two_classes_page):
    data, summary = Parsed(two_classes_page.read_text("utf-8")).data(), two_classes.scores()
    names = ("nucleus", NASTY)
    assert [(one["name"], tuple(one["colour"])) for one in data["classes"]] == list(
        zip(names, class_colours(2), strict=True)
    )
    for row in data["scores"]:
        found = [truth for truth in summary["scores"].values() if truth["iou"] == row["iou"]]
        found += [truth["classes"][row["name"]] for truth in summary["scores"].values() if "class" in row]
        assert any(one["dice"] == row["dice"] for one in found), row
    assert [row.get("class") for row in data["scores"]] == [None, 1, 2] * 3
    for image in summary["images"]:
        truth, prediction = (decode(data["pictures"][image["id"]][layer]) for layer in ("truth", "prediction"))
        for number, name in enumerate(names, start=1):
            true, predicted = truth == number, prediction == number
            dice = 2 * (true & predicted).sum() / (true.sum() + predicted.sum())
            assert dice == pytest.approx(image[f"dice_clean_{name}"])


def test_measurements_are_those_of_the_annotated_squares(two_classes, tmp_path):
    measured = Parsed(textdiff.report(two_classes, mpp=0.5, out=tmp_path / "a.html").read_text("utf-8")).data()[
        "measured"
    ]
    side = 64 * 0.5 / 1000
    for number, image in zip((3, 4), measured["images"], strict=True):
        sides = ((20, 20), (24, 24 - number))
        area = sum(height * width for height, width in sides)
        # The second moment of a row of n pixels is (n² - 1) / 12.
        moments = [sorted((n * n - 1) / 12 for n in pair) for pair in sides]
        expected = {
            "objects": 2,
            "share": area / 64**2,
            "objects_per_mm2": 2 / side**2,
            "mean_area_um2": area / 2 * 0.25,
            "mean_solidity": 1,
            "mean_eccentricity": np.mean([np.sqrt(1 - short / long) for short, long in moments]),
        }
        assert image["id"] == str(number)
        assert {name: image["annotated"][name] for name in expected} == pytest.approx(expected, rel=1e-4)
        assert image["annotated"]["mean_haematoxylin"] > 0.05
    means = {line["name"]: line["annotated"] for line in measured["means"]}
    assert means["objects"] == {"measurement": "objects", "mean": 2, "low": 2, "high": 2, "n": 2, "over": "groups"}
    plain = Parsed(textdiff.report(two_classes, out=tmp_path / "b.html").read_text("utf-8")).data()["measured"]
    assert not {"objects_per_mm2", "mean_area_um2"} & plain["titles"].keys()


def test_browser_shows_predicted_beside_annotated_measurements(view, page):
    first = Parsed(page.read_text("utf-8")).data()["measured"]["means"][0]
    row = view.evaluate(
        "[...document.querySelectorAll('#measured tbody tr:first-child .value')].map(e => e.textContent)"
    )
    assert [float(cell) for cell in row] == pytest.approx(
        [first["predicted"]["mean"], first["annotated"]["mean"]], rel=1e-3
    )
    images = view.evaluate("document.querySelectorAll('#measured-images tbody tr').length")
    assert images == len(Parsed(page.read_text("utf-8")).data()["measured"]["images"]) == 5


def test_browser_draws_each_class_in_its_colour_and_names_it(two_classes_page, tmp_path):
    found = browser.find_browser()
    if found is None:
        pytest.skip("no Chromium or Chrome on the path")
    with browser.Page(found, tmp_path) as view:
        view.open(two_classes_page)
        view.wait("document.querySelector('#stage').dataset.shown !== undefined")
        legend = "[...document.querySelectorAll('#legend span')].map(e => e.textContent)"
        assert view.evaluate(legend) == ["nucleus", printable(NASTY)]
        view.evaluate("left.value = 'truth', right.value = 'errors', left.dispatchEvent(new Event('change'))")
        view.wait("document.querySelector('#legend').textContent.endsWith('wrong class')")
        shown = view.evaluate("document.querySelector('#stage').dataset.shown")
        pictures = Parsed(two_classes_page.read_text("utf-8")).data()["pictures"][shown]
        truth, prediction = (decode(pictures[layer]).repeat(2, 0).repeat(2, 1) for layer in ("truth", "prediction"))
        over, under = (
            np.array(view.evaluate(PIXELS.format(name)), float).reshape(128, 128, 4)[..., :3]
            for name in ("over", "under")
        )
        for number, colour in enumerate(class_colours(2), start=1):
            # The outline is in the full colour, and no other class has any of it.
            outlined = np.abs(over - colour).max(axis=2) < 1
            assert (outlined & (truth == number)).sum() > 100
            assert not (outlined & (truth != number)).any()
        confused = (truth > 0) & (prediction > 0) & (truth != prediction)
        assert confused.any()
        assert ((under.max(axis=2) < 60) == confused).all()
        assert view.evaluate("[...document.querySelectorAll('#scores .part')].map(e => e.textContent)")[:2] == [
            "nucleus",
            printable(NASTY),
        ]
        assert "Dice, nucleus" in view.evaluate("document.querySelector('#table thead').textContent")
        for width in (1280, 390):
            view.resize(width, 844, mobile=width < 500)
            assert view.evaluate("document.documentElement.scrollWidth") <= width
        assert view.evaluate("window.broken") is None
        assert view.problems() == []


ORDER = "[...document.querySelectorAll('#table tbody tr')].map(row => row.dataset.id)"


def test_browser_sorts_by_a_click_on_a_head(view, scored):
    scores = {image["id"]: image["dice_clean"] for image in scored.scores()["images"]}
    best_first = sorted(scores, key=lambda name: (-scores[name], name))
    assert view.evaluate(ORDER) == best_first
    view.click("#table th[data-key=dice_clean] button")
    assert [scores[name] for name in view.evaluate(ORDER)] == sorted(scores.values())
    assert view.evaluate("document.querySelector('#table th[data-key=dice_clean]').ariaSort") == "ascending"
    view.click("#table th[data-key=id] button")
    assert view.evaluate(ORDER) == sorted(scores)
    assert view.evaluate("document.querySelectorAll('#table th[aria-sort]').length") == 1


def test_browser_shows_the_row_that_is_clicked_and_arrows_go_on(view, scored):
    view.click("#table th[data-key=id] button")
    first, second = view.evaluate(ORDER)[:2]
    # One of the two may be the one that is shown already.
    for name in (second, first):
        view.click(f"#table tr[data-id='{name}'] td.number")
        view.wait(f"document.querySelector('#stage').dataset.shown === '{name}'")
    view.click("#next")
    view.wait(f"document.querySelector('#stage').dataset.shown === '{second}'")
    assert view.evaluate("document.querySelector('tr[aria-selected=true]').dataset.id") == second
    view.evaluate(f"document.querySelector(\"tr[data-id='{second}'] button\").focus()")
    view.press("ArrowUp")
    view.wait(f"document.querySelector('#stage').dataset.shown === '{first}'")
    text = next(image["text"] for image in scored.scores()["images"] if image["id"] == first)
    assert view.evaluate("document.querySelector('#shown-text').textContent") == printable(text)
    assert view.evaluate("window.broken") is None


def test_browser_wipes_between_layers_with_mouse_and_keys(view):
    view.click("#wipe", x=0.25)
    assert 20 < float(view.evaluate("document.querySelector('#wipe').value")) < 30
    place = view.evaluate("document.querySelector('#handle').style.left")
    view.press("ArrowRight")
    assert view.evaluate("document.querySelector('#handle').style.left") != place
    assert re.match(r"inset\(0(px)? 7\d(\.\d+)?% 0(px)? 0(px)?\)|inset\(0px 7", view.evaluate("over.style.clipPath"))


def test_browser_draws_the_truth_in_its_colour_and_leaves_the_rest(view, page):
    view.evaluate("left.value = 'truth', right.value = 'image', left.dispatchEvent(new Event('change'))")
    view.wait("document.querySelector('#legend').textContent === 'foreground'")
    shown = view.evaluate("document.querySelector('#stage').dataset.shown")
    truth = decode(Parsed(page.read_text("utf-8")).data()["pictures"][shown]["truth"])
    over, under = (
        np.array(view.evaluate(PIXELS.format(name)), float).reshape(128, 128, 4)[..., :3] for name in ("over", "under")
    )
    changed = (over != under).any(axis=2)
    assert (changed == truth.repeat(2, axis=0).repeat(2, axis=1)).mean() > 0.999


def test_browser_filters_by_text_and_by_dice(view, scored):
    names = [image["id"] for image in scored.scores()["images"]]
    kept = [image["id"] for image in scored.scores()["images"] if "sparse" in image["text"]]
    fill = "(e => {{ e.value = '{}'; e.dispatchEvent(new Event('input')); }})(document.querySelector('#{}'))"
    view.evaluate(fill.format("SPARSE", "filter"))
    assert set(view.evaluate(ORDER)) == set(kept) < set(names)
    assert view.evaluate("document.querySelector('#count').textContent") == f"{len(kept)} of {len(names)} images"
    view.evaluate(fill.format("0", "below"))
    assert view.evaluate(ORDER) == []
    view.evaluate(fill.format("", "below") + "," + fill.format("", "filter"))
    assert set(view.evaluate(ORDER)) == set(names)


def test_browser_draws_the_bins_before_and_at_the_temperature(view, scored):
    trust = scored.scores()["trust"]
    filled = [sum(count > 0 for count in one["pixels"]) for one in trust["reliability"]]
    assert len(filled) == 2
    dots = "document.querySelectorAll('#reliability circle.{}').length"
    assert [view.evaluate(dots.format(kind)) for kind in ("before", "told")] == filled
    assert f"{100 * trust['reliability'][1]['error']:.2f} %" in view.evaluate(
        "document.querySelector('#reliability').textContent"
    )
    assert view.evaluate("document.querySelector('#trust-lines').children.length") == 2


def test_browser_reads_curves_under_the_pointer_and_by_keys(view, scored):
    box = view.evaluate(
        "(s => { s.scrollIntoView({block: 'center', behavior: 'instant'}); const b = s.getBoundingClientRect();"
        " return [b.right - 16, b.y + b.height / 2]; })(document.querySelector('#charts svg'))"
    )
    view.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    last = scored.log()[-1]
    assert view.evaluate("document.querySelector('#charts output').textContent") == f"epoch 12, {last['loss']:.4f}"
    view.evaluate("document.querySelector('#charts svg').focus()")
    view.press("ArrowLeft")
    assert view.evaluate("document.querySelector('#charts output').textContent").startswith("epoch 11, ")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_fits_the_page_to_its_width_with_readable_text(view, width, scheme):
    view.resize(width, 844, mobile=width < 500)
    assert view.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)")
    assert view.evaluate(
        "[...document.querySelectorAll('.chart svg text')].every(e => { const [a, b] = [e, e.ownerSVGElement]"
        ".map(n => n.getBoundingClientRect()); return a.left >= b.left - 1 && a.right <= b.right + 1; })"
    )
    view.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    light = view.evaluate(
        "['.muted', 'h1', '.caveat', '#table .text'].map(s => {"
        " const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});"
        " const l = c => { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);"
        "  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)"
        "   .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);"
        "  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };"
        " const e = document.querySelector(s);"
        " return [l(getComputedStyle(e).color), l(getComputedStyle(document.body).backgroundColor)]; })"
    )
    for text, ground in light:
        assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) > 4.5  # WCAG 2.2, 1.4.3
    assert (light[0][1] > 0.5) == (scheme == "light")
