"""The HTML report: whole in itself, true to the scores, safe with any text, and working in a real browser."""

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

import textdiff
from textdiff.console import printable
from textdiff.pipeline.reporting.html_page import data_uri, render_page
from textdiff.tests.report_cases import NASTY, PIXELS, Parsed, decode, shown_page


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


def test_a_report_replaces_a_report_and_nothing_else(scored, page, tmp_path, textdiff_once):
    own = tmp_path / "own.html"
    own.write_text("<title>My TextDiff report of May</title>")
    arguments = ("report", "--run", str(scored.path), "--images", "1", "--out", str(own))
    result = textdiff_once(tmp_path, *arguments, status=2)
    assert f"{own}: is there already, and is no report of a run; name another file, or remove it" in result.stderr
    assert "of May" in own.read_text()
    own.write_bytes(page.read_bytes())
    textdiff_once(tmp_path, *arguments)
    assert own.read_bytes() != page.read_bytes()


def test_a_split_that_was_not_scored_is_named_with_the_command(scored, textdiff_once, tmp_path):
    result = textdiff_once(tmp_path, "report", "--run", str(scored.path), "--split", "val", status=2)
    assert f"textdiff score --run {scored.path} --split val" in result.stderr


@pytest.fixture(scope="module")
def view(page, tmp_path_factory):
    with shown_page(page, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


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
    assert view.evaluate(  # no word of a head is broken
        "[...document.querySelectorAll('#table thead button')].every(({firstChild}) =>"
        " [...firstChild.data.matchAll(/\\S+/g)].every(word => { const r = new Range();"
        " r.setStart(firstChild, word.index); r.setEnd(firstChild, word.index + word[0].length);"
        " return r.getClientRects().length <= 1; }))"
    )
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
