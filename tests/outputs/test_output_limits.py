"""A format holds what its limit says and refuses one pixel or object more."""

import nibabel
import numpy as np
import pytest
import roifile

from textdiff.errors import UserError
from textdiff.outputs import FORMATS
from textdiff.outputs.polygons import trace
from textdiff.tests.output_cases import segment, write


def barred(width):
    """An image (2, width) of one object over all of it."""
    inside = np.stack([np.zeros((2, width)), np.ones((2, width))]).astype(np.float32)
    return segment("wide", np.zeros((2, width, 3), np.uint8), inside, ("a",))


@pytest.mark.parametrize(("kind", "largest"), [("nifti", 32767), ("roi", 32767)])
def test_a_format_holds_what_its_limit_says_and_refuses_one_pixel_more(kind, largest, tmp_path):
    path = write(kind, tmp_path, barred(largest))
    if kind == "nifti":
        assert nibabel.load(path).shape == (largest, 2, 1)
        assert np.asarray(nibabel.load(path).dataobj).all()
    else:
        (roi,) = roifile.roiread(path)
        assert np.ptp(roi.coordinates(), axis=0).tolist() == [largest, 2]
    path.unlink()
    with pytest.raises(UserError, match=rf"^wide: {largest + 1}x2 pixels.*{largest} a side; use --format geojson or "):
        write(kind, tmp_path, barred(largest + 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("nifti", "roi")])
def test_the_other_formats_hold_a_wider_image(kind, tmp_path):
    assert write(kind, tmp_path, barred(32768)).exists()


def test_more_objects_than_16_bits_are_numbered_by_nifti_and_refused_by_png(tmp_path):
    inside = np.zeros((512, 514), np.float32)
    inside[::2, ::2] = 1
    crowd = segment("crowd", np.zeros((512, 514, 3), np.uint8), np.stack([1 - inside, inside]), ("a",))
    assert len(crowd.found) == 256 * 257
    with pytest.raises(UserError, match=r"^crowd: 65792 objects, and PNG numbers 65535; use --format .*nifti"):
        write("png", tmp_path, crowd, numbered=True)
    read = np.asarray(nibabel.load(write("nifti", tmp_path, crowd, numbered=True)).dataobj)[..., 0].T
    assert (read == crowd.objects).all()


def test_an_object_of_more_corners_than_16_bits_count_is_whole_in_its_roi(tmp_path):
    comb = np.zeros((600, 600), bool)
    comb[:, 0] = comb[3::4] = comb[2::4, 2::2] = True
    segmented = segment("comb", np.zeros((600, 600, 3), np.uint8), np.stack([~comb, comb]).astype(np.float32), ("a",))
    (roi,) = roifile.roiread(write("roi", tmp_path, segmented))
    ((shell, _),) = trace(comb)
    assert len(shell) > 2**16
    assert (roi.coordinates() == shell).all()
