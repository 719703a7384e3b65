"""Annotations as QuPath, COCO, labelme and ImageScope write them, and folders of images that have them."""

import io
import json

import numpy as np
from PIL import Image

from textdiff.options.reading import ReadOptions
from textdiff.readers.datasets import read_dataset
from textdiff.readers.decoding import load_mask

H, W = 24, 32
NAMES = ("nucleus", "stroma")


def square(x, y, side, other=None):
    return [[x, y], [x + side, y], [x + side, y + (other or side)], [x, y + (other or side)], [x, y]]


def feature(*rings, name="nucleus", kind="Polygon", geometry=None, **properties):
    properties |= {} if name is None else {"classification": {"name": name, "color": [200, 0, 0]}}
    return {
        "type": "Feature",
        "id": "c9b1f7d4-1de7-4d2e-9a34-000000000000",
        "geometry": geometry or {"type": kind, "coordinates": list(rings)},
        "properties": {"objectType": "annotation"} | properties,
    }


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def flat(corners):
    """As COCO has them, open."""
    return [end for corner in corners[:4] for end in corner]


def labelme(*shapes, **more):
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "a.png", "imageData": None}
    return content | {"imageHeight": H, "imageWidth": W} | more


def shape(kind, points, label="nucleus", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def coco(*objects, images=("a.png",), size=(W, H), categories=NAMES):
    return {
        "images": [{"id": 7 + i, "file_name": f, "width": size[0], "height": size[1]} for i, f in enumerate(images)],
        "categories": [{"id": 1 + number, "name": name} for number, name in enumerate(categories)],
        "annotations": [{"id": i, "image_id": 7, "category_id": 1, "iscrowd": 0} | o for i, o in enumerate(objects)],
    }


def letters(runs):
    """Run lengths as pycocotools writes them, after its C source."""
    text = ""
    for place, run in enumerate(runs):
        number, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:
            group, number = number & 31, number >> 5
            more = number != -1 if group & 16 else number != 0
            text += chr(48 + (group | 32 * more))
    return text


def runs_of(mask):
    flat = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return np.diff(np.concatenate([[0], ends])).tolist()


def region(corners, excluded=0):
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners[:4])
    return f'<Region Id="1" Type="0" NegativeROA="{excluded}"><Vertices>{vertices}</Vertices></Region>'


def layer(*regions, name="", attribute="Description", value="", number=1):
    head = f'<Annotation Id="{number}" Name="{name}" LineColor="65280">'
    attributes = f'<Attributes><Attribute Name="{attribute}" Id="0" Value="{value}"/></Attributes>'
    return f"{head}{attributes}<Regions>{''.join(regions)}</Regions></Annotation>"


def imagescope(*layers):
    return f"<Annotations>{''.join(layers)}</Annotations>"


def folder(root, content, name="masks/a.geojson", images=("a",), shape=(H, W)):
    (root / "images").mkdir(parents=True)
    for number, image in enumerate(images):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(root / f"images/{image}.png")
    rows = [f"{image},\n" for image in images]
    (root / "texts.csv").write_text("".join(["image,text\n", *rows]))
    if content is not None:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return root


def read(root, **options):
    (sample, *_), problems = read_dataset("folder", root, ReadOptions(**options))
    return load_mask(sample, H, W), problems


def boxes(*parts):
    """A map of classes, from (class, x, y, width, height)."""
    found = np.zeros((H, W), np.uint8)
    for label, x, y, width, height in parts:
        found[y : y + height, x : x + width] = label
    return found


# Which pixels an outline holds


DISC = np.hypot(np.arange(W) + 0.5 - 15, np.arange(H)[:, None] + 0.5 - 12) < 6
SPECKS = np.random.default_rng(5).random((H, W)) < 0.4
PNG = io.BytesIO()
Image.fromarray(DISC[6:18, 9:21].astype(np.uint8) * 255).save(PNG, "PNG")
