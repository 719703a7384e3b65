"""Slides in the formats of several scanners, made from pictures, as far as OpenSlide looks at them."""

import io
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from imagecodecs import jpeg_encode
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

TILE = 64


def jpeg(pixels: np.ndarray) -> bytes:
    """As near to ``pixels`` as JPEG comes: no subsampling of colours, and the highest quality."""
    return jpeg_encode(np.ascontiguousarray(pixels), level=98, subsampling="444")


def tiles(level: np.ndarray, size: int = TILE) -> list[np.ndarray]:
    """Whole tiles, row by row, the last ones continued."""
    height, width = level.shape[:2]
    padded = np.pad(level, ((0, -height % size), (0, -width % size), (0, 0)), mode="edge")
    places = [(y, x) for y in range(0, len(padded), size) for x in range(0, padded.shape[1], size)]
    return [padded[y : y + size, x : x + size] for y, x in places]


def write_dicom(folder: Path, levels: Sequence[np.ndarray], mpp: float = 0.25, compressed: bool = False) -> Path:
    """A VL Whole Slide Microscopy Image (DICOM part 3, A.32.8), TILED_FULL: a file for each level; gives the first."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    for number, level in enumerate(levels):
        step = levels[0].shape[0] / level.shape[0]
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if compressed else ExplicitVRLittleEndian
        file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file.SeriesInstanceUID, file.StudyInstanceUID, file.FrameOfReferenceUID = series, study, frame_of_reference
        file.Modality, file.ImageType = "SM", ["DERIVED" if number else "ORIGINAL", "PRIMARY", "VOLUME"]
        file.ImageType = [*file.ImageType, "RESAMPLED" if number else "NONE"]
        file.InstanceNumber, file.LossyImageCompression = number + 1, "01" if compressed else "00"
        file.VolumetricProperties, file.SpecimenLabelInImage, file.BurnedInAnnotation = "VOLUME", "NO", "NO"
        file.DimensionOrganizationType = "TILED_FULL"
        file.TotalPixelMatrixRows, file.TotalPixelMatrixColumns = level.shape[:2]
        file.TotalPixelMatrixFocalPlanes = file.NumberOfOpticalPaths = 1
        file.Rows = file.Columns = TILE
        file.ImagedVolumeWidth, file.ImagedVolumeHeight = (
            mpp * step * length / 1000 for length in (level.shape[1], level.shape[0])
        )
        file.ImagedVolumeDepth = 0.001
        file.SamplesPerPixel, file.PlanarConfiguration = 3, 0
        file.PhotometricInterpretation = "YBR_FULL_422" if compressed else "RGB"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
        measures, shared, path = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = [mpp * step / 1000] * 2, 0.001
        shared.PixelMeasuresSequence = [measures]
        file.SharedFunctionalGroupsSequence = [shared]
        path.OpticalPathIdentifier, path.IlluminationColorCodeSequence = "0", []
        file.OpticalPathSequence = [path]
        frames = tiles(level)
        file.NumberOfFrames = len(frames)
        if compressed:
            file.PixelData = encapsulate([jpeg(frame) for frame in frames])
            file["PixelData"].is_undefined_length = True
        else:
            file.PixelData = b"".join(frame.tobytes() for frame in frames)
        file["PixelData"].VR = "OB"
        pydicom.dcmwrite(folder / f"level{number}.dcm", file, enforce_file_format=True)
    return folder / "level0.dcm"


def write_ndpi(path: Path, levels: Sequence[np.ndarray], mpp: float = 0.25) -> Path:
    """Hamamatsu's NDPI: a TIFF whose offsets have 64 bits, the upper halves behind each directory; a JPEG for a level.

    Tag 65421 is the lens; -1 is the picture of the whole glass, which is no level. Tag 65426 says where in the JPEG
    decoding may begin: behind its head, and behind each restart marker.
    """
    data, place = bytearray(b"II*\0" + bytes(8)), 4
    for number, level in enumerate([*levels, np.full((64, 128, 3), 200, np.uint8)]):
        step, encoded = levels[0].shape[0] / level.shape[0], io.BytesIO()
        blocks = level.shape[1] // 8 // 4
        Image.fromarray(level).save(encoded, "JPEG", quality=98, subsampling=0, restart_marker_blocks=blocks)
        picture = encoded.getvalue()
        scan = picture.index(b"\xff\xda")
        starts = [scan + 2 + int.from_bytes(picture[scan + 2 : scan + 4])]
        starts += [found.end() for found in re.finditer(rb"\xff[\xd0-\xd7]", picture)]
        at, dots = len(data), struct.pack("<2I", round(1e7 / (mpp * step)), 1000)
        data += picture + bytes(len(picture) % 2)
        lens = -1.0 if number == len(levels) else 40 / step
        whole = {256: level.shape[1], 257: level.shape[0], 273: at, 278: level.shape[0], 279: len(picture), 65420: 1}
        tags = {tag: (4, 1, struct.pack("<I", value)) for tag, value in whole.items()}
        tags |= {tag: (3, 1, struct.pack("<H", value)) for tag, value in {259: 7, 262: 6, 277: 3, 296: 3}.items()}
        tags |= {tag: (9, 1, bytes(4)) for tag in (65422, 65423, 65424)}  # where its middle is, and its focus
        tags |= {258: (3, 3, struct.pack("<3H", 8, 8, 8)), 282: (5, 1, dots), 283: (5, 1, dots)}
        tags |= {271: (2, 10, b"Hamamatsu\0"), 272: (2, 9, b"C9600-12\0"), 65421: (11, 1, struct.pack("<f", lens))}
        tags[65426] = (4, len(starts), struct.pack(f"<{len(starts)}I", *starts))
        entries = bytearray()
        for tag, (kind, count, value) in sorted(tags.items()):
            entries += struct.pack("<2HI", tag, kind, count)
            entries += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", len(data))
            data += value + bytes(len(value) % 2) if len(value) > 4 else b""
        data[place : place + 8] = struct.pack("<Q", len(data))
        data += struct.pack("<H", len(tags)) + entries
        place = len(data)
        data += bytes(8 + 4 * len(tags))
    path.write_bytes(data)
    return path


def write_mrxs(path: Path, levels: Sequence[np.ndarray], mpp: float = 0.25) -> Path:
    """3DHISTECH's MIRAX (https://openslide.org/formats/mirax): PNG tiles without overlaps, each level half the last."""
    folder, name = path.with_suffix(""), "0123456789ABCDEF0123456789ABCDEF"
    folder.mkdir(parents=True)
    Image.fromarray(levels[-1]).save(path, "JPEG")
    down, across = (-(-length // TILE) for length in levels[0].shape[:2])
    count = len(levels)
    ini = {
        "GENERAL": {
            "SLIDE_ID": name,
            "IMAGENUMBER_X": across,
            "IMAGENUMBER_Y": down,
            "OBJECTIVE_MAGNIFICATION": 40,
            "CURRENT_SLIDE_VERSION": "2.2",
            "SLIDE_NAME": "a",
            "PROJECT_NAME": "",
            "SLIDE_CREATIONDATETIME": "",
        },
        "HIERARCHICAL": {
            "HIER_COUNT": 1,
            "NONHIER_COUNT": 0,
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": count,
            "HIER_0_SECTION": "LAYER_0_SECTION",
        },
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
    }
    data = bytearray(b"Data")
    items: list[list[tuple[int, int, int, int]]] = []
    for number, level in enumerate(levels):
        section = ini["HIERARCHICAL"][f"HIER_0_VAL_{number}_SECTION"] = f"LAYER_0_LEVEL_{number}_SECTION"
        ini["HIERARCHICAL"][f"HIER_0_VAL_{number}"] = f"ZoomLevel_{number}"
        ini[section] = {
            "OVERLAP_X": 0,
            "OVERLAP_Y": 0,
            "MICROMETER_PER_PIXEL_X": mpp * 2**number,
            "MICROMETER_PER_PIXEL_Y": mpp * 2**number,
            "IMAGE_FILL_COLOR_BGR": 16777215,
            "DIGITIZER_WIDTH": TILE,
            "DIGITIZER_HEIGHT": TILE,
            "IMAGE_FORMAT": "PNG",
            "IMAGE_CONCAT_FACTOR": int(number > 0),
        }
        items.append([])
        columns = -(-level.shape[1] // TILE)
        for at, tile in enumerate(tiles(level)):
            encoded = io.BytesIO()
            Image.fromarray(tile).save(encoded, "PNG")
            y, x = (2**number * place for place in divmod(at, columns))
            items[-1].append((y * across + x, len(data), len(encoded.getvalue()), 0))
            data += encoded.getvalue()
    index = bytearray(b"01.02" + name.encode())
    heads = len(index) + 8
    index += struct.pack("<2i", heads, 0)
    at, pages = heads + 4 * count, bytearray()
    for records in items:
        index += struct.pack("<i", at + len(pages))
        page = at + len(pages) + 8
        pages += struct.pack("<2i", 0, page) + struct.pack("<2i", len(records), 0)
        pages += b"".join(struct.pack("<4i", *record) for record in records)
    (folder / "Index.dat").write_bytes(bytes(index + pages))
    (folder / "Data0000.dat").write_bytes(bytes(data))
    lines = [
        line
        for section, entries in ini.items()
        for line in (f"[{section}]", *(f"{k} = {v}" for k, v in entries.items()))
    ]
    (folder / "Slidedat.ini").write_text("\n".join(lines) + "\n", "utf-8-sig")
    return path
