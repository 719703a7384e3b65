"""Damaged files into every reader: each may be read or refused in one line, and nothing else.

    python tests/fuzz.py [READER ...] [--mutations 3000] [--seed 0]

A worker, limited in memory, reads one mutation after the other; one that says nothing for ten seconds is ended, and
the next one goes on behind it. Prints a table; the status is 1 if a reader raised anything but ``UserError``, hung or
took more than 2 GB.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SECONDS = 10.0
BYTES = 2 << 30
HUGE = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**31, 2**40, 2**63, 2**64 - 1)
WORDS = (
    b'"',
    b"'",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    "\u2028".encode(),
    b"\xed\xa0\x80",
    b"[" * 9000,
    b"&#0;",
    b"\r",
)

# What the readers read


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


# Mutations


def mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """A file with one to three faults, mostly behind what would give them away: a zip's and a PNG's checksums."""
    if data[:2] == b"PK" and draw.random() < 0.8:
        return in_zip(data, draw)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = with_fault(data, other, draw)
    return with_checksums(data) if data[:4] == b"\x89PNG" and draw.random() < 0.7 else data


def with_fault(data: bytes, other: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    # Half of all faults hit the first bytes, where headers are.
    at = draw.randrange(min(len(out), 600) if draw.random() < 0.5 else len(out)) if out else 0
    kind = 8 if b"\0" not in data and draw.random() < 0.4 else draw.randrange(9)
    if not out or kind == 0:
        return data[: draw.randrange(len(data) + 1)]
    if kind == 1:
        for _ in range(draw.choice((1, 1, 2, 8))):
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    elif kind == 2:
        out[at] = draw.choice((0, 1, 127, 128, 254, 255))
    elif kind == 3:
        out[at] ^= 1 << draw.randrange(8)
    elif kind in (4, 5):
        code = draw.choice("<>") + draw.choice("HIQ")
        size = struct.calcsize(code)
        out[at : at + size] = struct.pack(code, draw.choice((*HUGE, draw.getrandbits(64))) & (2 ** (8 * size) - 1))
    elif kind == 6:
        del out[at : at + draw.choice((1, 4, 16, 200))]
    elif kind == 7:
        start = draw.randrange(len(other))
        out[at:at] = other[start : start + draw.choice((1, 8, 100, 1000))]
    else:
        numbers = list(re.finditer(rb"\d+(\.\d+)?", data))
        if numbers and draw.random() < 0.7:
            found = draw.choice(numbers)
            new = draw.choice((b"-1", b"0", b"1e999", b"nan", b"10000000", b"9" * 30, b"1.5", b"null"))
            out[found.start() : found.end()] = new
        else:
            out[at:at] = draw.choice(WORDS)
    return bytes(out)


def in_zip(data: bytes, draw: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        chosen = draw.choice([name for name in names if "sheet" in name or "shared" in name or "workbook" in name])
        for name in names:
            content = old.read(name)
            new.writestr(name, with_fault(content, content, draw) if name == chosen else content)
    return out.getvalue()


def with_checksums(data: bytes) -> bytes:
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


# The worker and who watches it


def work(name: str, seed: int, first: int, count: int) -> None:
    from textdiff.errors import UserError

    suffix, make, read = READERS[name]
    files = list(make())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(files[0])
        read(path)  # imports what it needs, and the first file must be sound
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, size + BYTES))
        print("ready", flush=True)
        for number in range(first, first + count):
            draw = random.Random(f"{name} {seed} {number}")
            path.write_bytes(mutated(draw.choice(files), draw.choice(files), draw))
            start = time.perf_counter()
            said, detail = "accepted", ""
            try:
                read(path)
            except UserError as error:
                said = "refused" if "\n" not in str(error) else "traceback"
                detail = str(error) if said == "traceback" else ""
            except BaseException as error:
                said, detail = "traceback", f"{type(error).__name__}: {error}"
            seconds = time.perf_counter() - start
            peak = _peak()
            print(json.dumps([number, said, seconds, peak, detail[:300]]), flush=True)


def _peak() -> int:
    """The most memory that this process had, in bytes; ``ru_maxrss`` begins with that of the one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


@dataclass
class Outcome:
    """What came of the mutations of one reader."""

    name: str
    refused: int = 0
    accepted: int = 0
    slowest: float = 0.0
    peak: int = 0
    faults: list[str] = field(default_factory=list)
    """One line for each mutation that raised, hung, crashed, or printed something."""

    @property
    def row(self) -> str:
        """The reader's line of the table, in Markdown."""
        total = self.refused + self.accepted + len(self.faults)
        return (
            f"| {self.name} | {total} | {self.refused} | {self.accepted} | {len(self.faults)} | {self.slowest:.2f} s | "
            f"{self.peak / 2**20:.0f} MiB |"
        )


HEAD = """| reader | mutations | refused | accepted | faults | slowest | peak memory |
| :-- | --: | --: | --: | --: | --: | --: |"""


def fuzz(name: str, mutations: int, seed: int = 0) -> Outcome:
    """Reads ``mutations`` damaged files with one reader."""
    outcome, done, tried = Outcome(name), 0, -1
    while done < mutations:
        command = [sys.executable, __file__, "--worker", name, str(seed), str(done), str(mutations - done)]
        with tempfile.TemporaryFile() as errors:
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
            assert worker.stdout is not None
            waiting = 120.0  # for imports and the files
            buffer, began = b"", False
            while True:
                ready, _, _ = select.select([worker.stdout], [], [], waiting)
                piece = os.read(worker.stdout.fileno(), 1 << 16) if ready else b""
                buffer += piece
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    waiting = SECONDS
                    if line == b"ready":
                        began = True
                        continue
                    number, said, seconds, peak, detail = json.loads(line)
                    done = number + 1
                    outcome.slowest, outcome.peak = max(outcome.slowest, seconds), max(outcome.peak, peak)
                    outcome.refused += said == "refused"
                    outcome.accepted += said == "accepted"
                    if said == "traceback" or seconds > SECONDS or peak > BYTES:
                        outcome.faults.append(f"{name} {number}: {detail or f'{seconds:.0f} s, {peak >> 20} MiB'}")
                if not piece:
                    break
            if not began:
                worker.kill()
                errors.seek(0)
                raise RuntimeError(f"{name}: a sound file is not read: {errors.read().decode()}")
            if worker.poll() is None and not ready:
                worker.send_signal(signal.SIGKILL)
                # The machine may have been busy with something else: what hangs does so again.
                if tried == done:
                    outcome.faults.append(f"{name} {done}: nothing for {waiting:.0f} s")
                    outcome.slowest = max(outcome.slowest, waiting)
                    done += 1
                else:
                    tried = done
            elif worker.wait() != 0:
                errors.seek(0)
                outcome.faults.append(f"{name} {done}: ended with {worker.returncode}: {errors.read()[-300:]!r}")
                done += 1
            worker.wait()
            errors.seek(0)
            if printed := errors.read().strip():
                outcome.faults.append(f"{name}: printed {printed[:300]!r}")
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", default=list(READERS))
    parser.add_argument("--mutations", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, *numbers = options.worker
        work(name, *map(int, numbers))
        return 0
    outcomes = []
    for name in options.readers:
        outcomes.append(fuzz(name, options.mutations, options.seed))
        print(outcomes[-1].row, *outcomes[-1].faults, sep="\n", flush=True)
    print(HEAD, *(outcome.row for outcome in outcomes), sep="\n")
    return int(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
