"""The means over patients in a report, computed again by scikit-image and shapely from the masks that were written."""

import numpy as np
import pytest
import shapely
from PIL import Image
from skimage import color, measure

import textdiff
from textdiff.tests.report_cases import Parsed

SIDE, MPP = 64, 0.5
SPLITS = ("train", "train", "test", "test", "test", "test")
PATIENTS = ("eve", "eve", "anna", "bert", "anna", "carl")


def write(root) -> None:
    """Pictures of dark discs, each of other ones; those of anna are two of the four for the test."""
    for folder in ("images", "masks", "test"):
        (root / "data" / folder if folder != "test" else root / folder).mkdir(parents=True)
    y, x = np.mgrid[:SIDE, :SIDE]
    for index, split in enumerate(SPLITS):
        draw = np.random.default_rng(index)
        mask = np.zeros((SIDE, SIDE), bool)
        for _ in range(3 + 2 * index):
            cy, cx, wide = draw.uniform(4, 60), draw.uniform(4, 60), draw.uniform(0.6, 1.6)
            mask |= (y - cy) ** 2 * wide + (x - cx) ** 2 / wide < draw.uniform(3, 7) ** 2
        pixels = np.where(mask[..., None], (90, 60, 140), (230, 200, 220)) - draw.integers(0, 30, (SIDE, SIDE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"data/images/{index}.png")
        if split == "test":
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"test/{index}.png")
        Image.fromarray(np.uint8(255) * mask).save(root / f"data/masks/{index}.png")
    lines = [f"{index},,{split},{who}" for index, (split, who) in enumerate(zip(SPLITS, PATIENTS, strict=True))]
    (root / "data/texts.csv").write_text("\n".join(["image,text,split,group", *lines]))


def measured(mask: np.ndarray, image: np.ndarray) -> tuple[int, list[tuple[float, ...]]]:
    """The area of an image's objects, and of each its eccentricity, solidity and haematoxylin."""
    regions = measure.regionprops(measure.label(mask), intensity_image=color.rgb2hed(image)[..., 0])

    def solidity(region) -> float:
        y, x = region.coords.T
        return region.area / shapely.union_all(shapely.box(x, y, x + 1, y + 1)).convex_hull.area

    return int(mask.sum()), [(one.eccentricity, solidity(one), one.intensity_mean) for one in regions]


def test_means_over_patients_are_those_of_the_masks(tmp_path):
    write(tmp_path)
    cache = textdiff.extract(
        *("folder",), data=tmp_path / "data", cache=tmp_path / "c.zarr", backbone="rgb", text_encoder="none",
        image_size=SIDE, blocks=(6,), steps=(0,), views=1,
    )  # fmt: skip
    run = textdiff.fit(cache, variant="no-text", width=16, epochs=4, runs=tmp_path / "runs")
    textdiff.score(run)
    page = textdiff.report(run, own_mpp=MPP, out=tmp_path / "a.html").read_text("utf-8")
    textdiff.predict(tmp_path / "test", run=run, out=tmp_path / "predicted")
    told = Parsed(page).data()["measured"]
    assert told["over"] == "groups"
    for kind, folder in (("predicted", "predicted"), ("annotated", "data/masks")):
        patients = {}
        for index, who in enumerate(PATIENTS):
            if SPLITS[index] == "test":
                mask, image = (np.asarray(Image.open(tmp_path / f"{of}/{index}.png")) for of in (folder, "test"))
                patients.setdefault(who, []).append(measured(mask > 0, image))
        lines = []
        for images in patients.values():
            area, objects = sum(one[0] for one in images), [each for one in images for each in one[1]]
            pixels = len(images) * SIDE**2
            density = len(objects) / (pixels * MPP**2 / 1e6)
            mean_area = area * MPP**2 / len(objects)
            lines.append((len(objects), area / pixels, density, mean_area, *np.mean(objects, 0)))
        names = [line["name"] for line in told["means"]]
        assert [name.removeprefix("mean_") for name in names] == [
            *("objects", "share", "objects_per_mm2", "area_um2", "eccentricity", "solidity", "haematoxylin")
        ]
        # Of three patients one in 27 resamples has the least alone, which is more than 2.5 %: so it is an end.
        for name, values in zip(names, np.transpose(lines), strict=True):
            (line,) = (found[kind] for found in told["means"] if found["name"] == name)
            assert line["n"] == 3
            found = [line[end] for end in ("mean", "low", "high")]
            assert found == pytest.approx([values.mean(), values.min(), values.max()], rel=1e-4), (kind, name)
