"""Lines and points from QuPath and labelme: strokes of a class, on pixels of which nothing else is said."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from textdiff.images.labels import UNSAID
from textdiff.tests.annotation_cases import NAMES, H, W, collection, feature, folder, labelme, read, shape, square

LINES = {
    "stroma": ([[-5, 3], [12.2, 3.4], [20, 15]], [[25, 2], [25, 2]], [[30, 20], [80, 60]]),
    "background": ([[3.7, 18.1]], [[9, 21.5]], []),
}


def near(lines):
    """Which pixels have their centre within 1.5 pixels of one of many places along a line."""
    share = np.linspace(0, 1, 4001)[:, None]
    ends = [(np.array(a), np.array(b)) for line in lines for a, b in zip(line, line[1:] or line, strict=False)]
    places = np.concatenate([start + share * (end - start) for start, end in ends])
    centres = np.argwhere(np.ones((H, W)))[:, ::-1] + 0.5
    return (KDTree(places).query(centres)[0] <= 1.5).reshape(H, W)


@pytest.mark.parametrize("tool", ["QuPath", "labelme"])
def test_lines_and_points_with_a_class_are_strokes_where_nothing_is_known_of_the_rest(tmp_path, tool):
    lines, points = LINES["stroma"], LINES["background"]
    kinds = [("linestrip", lines[0]), ("line", lines[1]), ("linestrip", lines[2])]
    kinds += [("point", points[0]), ("points", points[1]), ("points", points[2])]
    shapes = [shape(kind, place, "background" if "point" in kind else "stroma") for kind, place in kinds]
    content = {
        "labelme": labelme(*shapes, shape("rectangle", [[13, 6], [25, 18]])),
        "QuPath": collection(
            feature(geometry={"type": "LineString", "coordinates": lines[0]}, name="stroma"),
            feature(geometry={"type": "MultiLineString", "coordinates": lines[1:]}, name="stroma"),
            feature(geometry={"type": "Point", "coordinates": points[0][0]}, name="background"),
            feature(geometry={"type": "MultiPoint", "coordinates": points[1]}, name="background"),
            feature(geometry={"type": "MultiPoint", "coordinates": points[2]}, name="background"),
            feature(geometry={"type": "LineString", "coordinates": [[1, 1], [30, 1]]}, name=None),
            feature(square(13, 6, 12), square(16, 8, 3)),
        ),
    }[tool]
    options = {"classes": ("background", *NAMES), "unlabelled_value": "0"}
    mask, _ = read(folder(tmp_path / "d", content), **options)
    wanted = np.full((H, W), UNSAID, np.uint8)
    wanted[6:18, 13:25] = 1
    if tool == "QuPath":
        wanted[8:11, 16:19] = UNSAID
    # What lies in something else is smaller, and keeps its pixels; the background takes only what is free.
    stroma = near(lines)
    wanted[stroma] = 2
    wanted[near(points[:2]) & (wanted == UNSAID)] = 0
    np.testing.assert_array_equal(mask.labels, wanted)
    assert any("drawn 3 pixels wide" in said for said in mask.notes)
    assert any("1 of 7 objects are lines or points, which have no class" in said for said in mask.notes) == (
        tool == "QuPath"
    )
