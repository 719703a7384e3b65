"""Objects of images that come in parts measure what they do in one piece: by scikit-image, shapely and arithmetic."""

import csv
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from skimage import color, measure

from textdiff.images import formats
from textdiff.tests.report_cases import Parsed
from textdiff.tests.run_cases import one_line

cases = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "slide_cases.py")))
SIDES = (320, 340)
"""The picture has these at 1 µm: more than the 256 rows of a band, and nine tiles of 128 pixels."""
BAND = 256
FIT = ("--variant", "no-text", "--width", "16", "--epochs", "4")


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Discs at 0.5 µm, and a ring that many tiles and two bands have parts of, with its mask."""
    image, inside = cases.tissue(2 * SIDES[0], 2 * SIDES[1], seed)
    y, x = np.mgrid[: 2 * SIDES[0], : 2 * SIDES[1]]
    ring = np.abs(np.hypot((y - 2 * BAND) / 0.8, x - 340) - 100) < 12
    image[ring] = (90, 50, 130)
    return image, inside | ring


@pytest.fixture(scope="module")
def made(tmp_path_factory, textdiff_once) -> Path:
    """Runs of slides and of pictures, both at 1 µm; slides of 0.5 µm, and a large TIFF that is one of them at 1 µm."""
    root = tmp_path_factory.mktemp("measures")
    for number, name in enumerate(("a", "b")):
        image, inside = picture(number)
        half = cases.halved(image)
        for folder in ("slides", "pictures"):
            (root / folder / "images").mkdir(parents=True, exist_ok=True)
            (root / folder / "masks").mkdir(exist_ok=True)
            mask = np.uint8(255) * inside if folder == "slides" else np.uint8(255) * inside[::2, ::2]
            tifffile.imwrite(root / folder / f"masks/{name}.tif", mask, tile=(64, 64), compression="zlib")
        cases.write_svs(root / f"slides/images/{name}.svs", [image, half], mpp=0.5)
        Image.fromarray(half).save(root / f"pictures/images/{name}.png")
        dots = {"resolution": (10000, 10000), "resolutionunit": "CENTIMETER"}  # 1 µm
        tifffile.imwrite(root / f"large-{name}.tif", half, photometric="rgb", rowsperstrip=32, **dots)
    plain = ("--tile", "128", "--overlap", "16", "--preset", "rgb", "--text-encoder", "none", "--image-size", "64")
    for folder, more in (("slides", ("--mpp", "1")), ("pictures", ())):
        data = ("--dataset", "folder", "--data", folder, "--cache", f"{folder}.zarr", "--views", "1")
        textdiff_once(root, "extract", *data, *plain, *more)
        textdiff_once(root, "fit", "--cache", f"{folder}.zarr", "--runs", f"of-{folder}", *FIT)
    return root


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


@pytest.mark.parametrize(
    ("of", "file", "scale"), [("slides", "slides/images/b.svs", 2), ("pictures", "large-b.tif", 1)]
)
def test_shapes_and_stain_are_those_of_the_whole_picture(made, textdiff_once, monkeypatch, of, file, scale):
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.01)
    textdiff_once(
        made, "predict", file, "--run", f"of-{of}/latest", "--out", f"{of}-out", "--tissue", "0", "--min-area", "3"
    )
    name = Path(file).stem
    mask, image = tifffile.imread(made / f"{of}-out/{name}.tif"), cases.halved(picture(1)[0])
    regions = measure.regionprops(measure.label(mask > 0), intensity_image=color.rgb2hed(image)[..., 0])
    assert any(region.bbox[0] < BAND - 20 and region.bbox[2] > BAND + 20 for region in regions)

    def expected(region) -> tuple[float, ...]:
        y, x = region.coords.T
        hull = shapely.union_all(shapely.box(x, y, x + 1, y + 1)).convex_hull
        centre = [scale * (place + 0.5) for place in region.centroid]
        return (*centre, region.eccentricity, region.area / hull.area, region.intensity_mean)

    columns = ("centroid_y", "centroid_x", "eccentricity", "solidity", "haematoxylin")
    found = [tuple(float(row[name]) for name in columns) for row in table(made / f"{of}-out/predictions.csv")]
    wanted = np.array(sorted(map(expected, regions)))
    assert len(wanted) > 20
    assert (np.abs(np.array(sorted(found)) - wanted) < [6e-4, 6e-4, 2e-6, 2e-6, 2e-6]).all()
    (line,) = table(made / f"{of}-out/images.csv")
    means = [float(line[f"mean_{name}"]) for name in columns[2:]]
    np.testing.assert_allclose(means, wanted[:, 2:].mean(0), rtol=0, atol=2e-6)


def test_a_large_tiff_has_the_density_that_its_own_micrometres_give(made, textdiff_once, monkeypatch):
    monkeypatch.setattr(formats, "MAX_MEGAPIXELS", 0.01)
    textdiff_once(made, "predict", "large-a.tif", "large-b.tif", "--run", "of-pictures/latest", "--out", "density")
    lines = {line["image"]: line for line in table(made / "density/images.csv")}
    square, counts = SIDES[0] * SIDES[1] * 1e-6, []
    for name in ("large-a", "large-b"):
        mask = tifffile.imread(made / f"density/{name}.tif") > 0
        counts.append(measure.label(mask).max())
        assert float(lines[name]["objects_per_mm2"]) == pytest.approx(counts[-1] / square, rel=1e-6)
        assert float(lines[name]["area_mm2"]) == pytest.approx(mask.sum() * 1e-6, rel=1e-6)
        assert float(lines[name]["mean_area_um2"]) == pytest.approx(mask.sum() / counts[-1], rel=1e-6)
    summary = {line["measurement"]: float(line["mean"]) for line in table(made / "density/summary.csv")}
    assert summary["objects_per_mm2"] == pytest.approx(np.mean(counts) / square, rel=1e-6)


def test_a_report_measures_and_scores_are_at_the_resolution_of_their_cache(made, textdiff_once, tmp_path):
    run = ("--run", "of-slides/latest", "--split", "train")
    scored = textdiff_once(made, "score", *run).stdout
    assert "The original size is that at the cache's 1 µm per pixel." in scored
    page = tmp_path / "page.html"
    textdiff_once(made, "report", *run, "--out", str(page))
    told = Parsed(page.read_text("utf-8")).data()["measured"]
    assert told["at"] == "1 µm per pixel"
    found = {one["id"]: one["annotated"] for one in told["images"]}
    for number, name in enumerate(("a", "b")):
        area = found[name]["mean_area_um2"] * found[name]["objects"]
        assert area == pytest.approx(picture(number)[1].sum() * 0.5**2, rel=0.05)
    refused = one_line(textdiff_once(made, "report", *run, "--own-mpp", "0.5", "--out", str(page), status=2).stderr)
    assert refused.endswith("slides.zarr was extracted with --mpp 1, and its masks have that; leave it out")
