"""What the fuzzer gives to the readers, and how each is called; ``fuzz`` has the faults and who watches."""

import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

# Sound files


def picture(number: int, side: int = 48) -> np.ndarray:
    draw = np.random.default_rng(number)
    return np.cumsum(draw.integers(-3, 4, (side, side, 3)), axis=0).astype(np.uint8)


def by_pillow(kind: str, *modes: str, **options: object) -> Iterator[bytes]:
    from PIL import Image

    for mode in modes:
        out = io.BytesIO()
        Image.fromarray(picture(1)).convert(mode).save(out, kind, **options)
        yield out.getvalue()


def jpegs() -> Iterator[bytes]:
    yield from by_pillow("JPEG", "RGB", "L", "CMYK")
    yield from by_pillow("JPEG", "RGB", progressive=True)


def tiffs() -> Iterator[bytes]:
    import tifffile

    yield from by_pillow("TIFF", "RGB", "P", "CMYK", compression="tiff_lzw")
    yield from by_pillow("TIFF", "RGB", compression="jpeg")
    yield from by_pillow("TIFF", "1", compression="group4")
    for options in (
        {},
        {"compression": "zlib", "predictor": 2, "tile": (16, 32)},
        {"compression": "zlib", "rowsperstrip": 5, "bigtiff": True, "byteorder": ">"},
        {"ome": True, "metadata": {"axes": "YXS"}},
    ):
        out = io.BytesIO()
        tifffile.imwrite(out, picture(2), photometric="rgb", **options)
        yield out.getvalue()
    out = io.BytesIO()
    tifffile.imwrite(out, picture(3).transpose(2, 0, 1), photometric="minisblack", ome=True, metadata={"axes": "CYX"})
    yield out.getvalue()
    out = io.BytesIO()
    tifffile.imwrite(out, picture(3)[..., 0].astype(np.float32), compression="zlib", photometric="minisblack")
    yield out.getvalue()


def dicoms() -> Iterator[bytes]:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    jpeg = next(by_pillow("JPEG", "L"))
    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50"):
        small = syntax.endswith("50")
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = syntax
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "1.2.3"
        file.Rows = file.Columns = 48
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = 8 if small else 16
        file.BitsStored = 8 if small else 12
        file.HighBit, file.PixelRepresentation = file.BitsStored - 1, 0
        file.RescaleSlope, file.RescaleIntercept = "1", "-1024"
        file.WindowCenter, file.WindowWidth = ["40", "500"], ["400", "2000"]
        file.PixelData = encapsulate([jpeg]) if small else (picture(1)[..., 0].astype("<u2") * 16).tobytes()
        out = io.BytesIO()
        pydicom.dcmwrite(out, file, enforce_file_format=True)
        yield out.getvalue()
    yield out.getvalue()[132:]


def hdf5s() -> Iterator[bytes]:
    import h5py

    stack = np.stack([picture(number, 32) for number in range(4)])
    for options in ({}, {"chunks": (1, 32, 32, 3), "compression": "gzip", "shuffle": True}, {"chunks": (2, 16, 16, 3)}):
        out = io.BytesIO()
        with h5py.File(out, "w", libver=("latest" if options else "earliest")) as file:
            file.create_dataset("images", data=stack, **options)
            file["masks"] = (stack[..., 0] > 100).astype(np.uint8)
            file["texts"], file["split"] = ["one", "two", "", "four"], ["train", "train", "val", "test"]
        yield out.getvalue()
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for number in range(4):
            file[f"images/{number}"], file[f"texts/{number}"] = stack[number], "text"
            file[f"masks/{number}"] = (stack[number, ..., 0] > 100).astype(np.uint8)
    yield out.getvalue()


ROWS = [("image", "text", "split", "group"), *[(f"c{n}", f'dark, "round" discs µ{n}', "train", n) for n in range(4)]]


def tables(ending: str) -> Iterator[bytes]:
    if ending == "xlsx":
        from openpyxl import Workbook

        book = Workbook()
        for row in ROWS:
            book.active.append(row)
        out = io.BytesIO()
        book.save(out)
        yield out.getvalue()
    elif ending == "jsonl":
        yield "\n".join(json.dumps(dict(zip(ROWS[0], row, strict=True))) for row in ROWS[1:]).encode()
    else:
        import csv

        for separator, encoding in ((",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16")):
            text = io.StringIO()
            csv.writer(text, delimiter=separator).writerows(ROWS)
            yield text.getvalue().encode(encoding)


def outlines() -> Iterator[bytes]:
    squares = [[(x, y), (x + 9, y), (x + 9, y + 9), (x, y + 9)] for x, y in ((2, 3), (20, 20), (5, 30))]
    regions = "".join(
        f'<Region Id="{n}" Type="{n % 2}" NegativeROA="0"><Vertices>'
        + "".join(f'<Vertex X="{x}.5" Y="{y}" Z="0"/>' for x, y in square)
        + "</Vertices></Region>"
        for n, square in enumerate(squares)
    )
    layer = f'<Annotation Id="1"><Regions>{regions}</Regions></Annotation>'
    yield f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.25">{layer}</Annotations>'.encode()


def checkpoints() -> Iterator[bytes]:
    from textdiff.models.backbones.checkpoints import save_unet
    from textdiff.models.backbones.unet import UNet

    with tempfile.TemporaryDirectory() as folder:
        save_unet(UNet(32, 3, 32, 6, 1, (2,), (1, 1), 4, 32, True, True), Path(folder, "a.safetensors"))
        yield Path(folder, "a.safetensors").read_bytes()


def run_file(name: str) -> Iterator[bytes]:
    yield (run_folder() / name).read_bytes()


def run_folder() -> Path:
    """A run of one epoch, made once and kept beside the mutations; by another state of the program, another one."""
    from textdiff.pipeline import fit, run_files, runs
    from textdiff.pipeline.training import begin

    modules = (fit, begin, run_files, runs)
    made_by = hashlib.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules)).hexdigest()[:12]
    root = Path(tempfile.gettempdir()) / f"fuzz-run-{made_by}"
    if not (root / "runs/latest").exists():
        from PIL import Image

        shutil.rmtree(root, ignore_errors=True)
        for kind in ("images", "masks"):
            (root / "data" / kind).mkdir(parents=True)
        for number in range(4):
            pixels = picture(number, 64)
            Image.fromarray(pixels).save(root / f"data/images/{number}.png")
            Image.fromarray((pixels[..., 0] > 100).astype(np.uint8) * 255).save(root / f"data/masks/{number}.png")
        table = "".join(f"{n},a text,{split}\n" for n, split in enumerate(("train", "train", "val", "test")))
        (root / "data/texts.csv").write_text("image,text,split\n" + table)
        cache = ("--cache", "t.zarr")
        where = ("--dataset", "folder", "--data", "data", "--preset", "rgb", "--image-size", "64")
        extract = ("extract", *where, "--text-encoder", "none", "--views", "1")
        for command in ((*extract, *cache), ("fit", *cache, "--epochs", "1", "--variant", "no-text")):
            code = "from textdiff.cli import main; main()"
            subprocess.run([sys.executable, "-c", code, *command], cwd=root, check=True, capture_output=True)
    return root / "runs/latest"


# How they are read


def read_image(path: Path) -> None:
    from textdiff.errors import UserError
    from textdiff.readers.decoding import load_image, load_mask
    from textdiff.readers.sample import Sample

    load_image(path)
    with contextlib.suppress(UserError):  # a photograph is no mask
        load_mask(Sample("a", "train", path, path, "", instances=True), 48, 48)


def read_rows(path: Path) -> None:
    from textdiff.errors import UserError
    from textdiff.images.bands import open_image_bands, open_mask_bands

    with open_image_bands(path) as source:
        for first, end in source.bands():
            source.read(first, end)
    with contextlib.suppress(UserError), open_mask_bands(path, True) as source:
        source.read(0, source.height)


def read_hdf5(path: Path) -> None:
    from textdiff.readers.datasets import read_dataset
    from textdiff.readers.decoding import load_image, load_mask

    for sample in read_dataset("hdf5", path)[0]:
        pixels = load_image(sample.image).pixels
        if sample.mask is not None:
            load_mask(sample, *pixels.shape[:2])


def read_table(path: Path) -> None:
    from textdiff.readers.datasets import read_dataset

    root = path.parent / "table"
    shutil.rmtree(root, ignore_errors=True)
    (root / "images").mkdir(parents=True)
    for number in range(4):
        (root / f"images/c{number}.png").touch()
    shutil.copy(path, root / f"texts{path.suffix}")
    read_dataset("folder", root)


def read_outlines(path: Path) -> None:
    from textdiff.readers.decoding import load_mask
    from textdiff.readers.sample import Sample

    load_mask(Sample("a", "train", path, path, "", instances=True), 48, 48)


def read_checkpoint(path: Path) -> None:
    from textdiff.models.backbones.checkpoints import load_unet

    load_unet(path, image_size=32)


def read_run(path: Path) -> None:
    from textdiff.pipeline.runs import find_run

    run = path.parent / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(run_folder(), run)
    shutil.copy(path, run / ("config.json" if path.suffix == ".json" else "head.safetensors"))
    find_run(run, run.parent).load_network()


Reader = tuple[str, Callable[[], Iterator[bytes]], Callable[[Path], None]]
READERS: dict[str, Reader] = {
    "png": (".png", lambda: by_pillow("PNG", "RGB", "RGBA", "P", "L", "1", "LA"), read_image),
    "jpeg": (".jpg", jpegs, read_image),
    "bmp": (".bmp", lambda: by_pillow("BMP", "RGB", "P", "L", "1"), read_image),
    "tiff": (".tif", tiffs, read_image),
    "tiff by rows": (".tif", tiffs, read_rows),
    "dicom": (".dcm", dicoms, read_image),
    "hdf5": (".h5", hdf5s, read_hdf5),
    "xlsx": (".xlsx", lambda: tables("xlsx"), read_table),
    "csv": (".csv", lambda: tables("csv"), read_table),
    "jsonl": (".jsonl", lambda: tables("jsonl"), read_table),
    "outlines": (".xml", outlines, read_outlines),
    "checkpoint": (".safetensors", checkpoints, read_checkpoint),
    "head": (".safetensors", lambda: run_file("head.safetensors"), read_run),
    "config": (".json", lambda: run_file("config.json"), read_run),
}
