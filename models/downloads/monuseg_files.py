"""MoNuSeg in the layout of LViT: fetched as one zip file, every file of it checked, unpacked as a whole.

The images are those of the MoNuSeg challenge (https://monuseg.grand-challenge.org/Data/), the split, the binary masks
and the sentences those of LViT (https://arxiv.org/abs/2206.14718), all under CC BY-NC-SA 4.0.
"""

__all__ = ["LVIT", "check_monuseg", "direct_url", "download_monuseg", "listed_files"]

import hashlib
import json
import os
import re
import shutil
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import IO

from textdiff import console
from textdiff.errors import UserError, few
from textdiff.files import check_free_space, sha256_file
from textdiff.models.downloads.download import download

LVIT = "https://github.com/HUANGLIZI/LViT"
MANIFEST = Path(__file__).with_name("monuseg.sha256.json")
_ANCHOR = "Train_Folder/Train_text.xlsx"
_PIECE = 1 << 20


def download_monuseg(target: Path, url: str | None = None) -> Path:
    """Makes the directory ``target`` with the 44 images, their masks and the three tables of sentences.

    Nothing appears under ``target`` before all 91 files were found to have the expected SHA-256. Only these files are
    unpacked, wherever in the zip file their common folder is.

    Args:
        target: the directory to make. If it is there and complete, nothing is done.
        url: the address of the zip file, Google Drive's share links included, or the path of one on this machine.

    Returns:
        ``target``.

    Raises:
        UserError: no address; it gives something else; files are missing or differ; ``target`` holds other things.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if faults := check_monuseg(target):
            raise UserError(
                f"{target}: already there and not as expected: {few(faults, 3, count=True)}; remove it or name another"
            )
        console.info(f"{target}: is complete and verified; there is nothing to do")
        return target
    if url is None:
        raise UserError(
            "monuseg: its authors publish no direct address for the prepared data; see section 1 of "
            f"{LVIT}#readme, then give the zip file's address or path with --url"
        )
    needed = sum(size for size, _ in listed_files().values())
    if "://" not in url:
        if not Path(url).is_file():
            raise UserError(
                f"--url {url}: no such file; give the zip file's path, or its address beginning with https://"
            )
        _make_place(target, needed)
        _unpack(Path(url), target, url)
        return target
    _make_place(target, 2 * needed)  # the zip file is about as large as what is in it
    archive = download(direct_url(url), _beside(target, "download.zip"))
    try:
        _unpack(archive, target, url)
    except UserError:
        archive.unlink()  # or the next call would find it again
        raise
    archive.unlink()
    return target


def check_monuseg(root: Path) -> list[str]:
    """What is wrong with a copy of the data set: ``Train_Folder/img/x.png: missing`` or ``...: differs``."""
    faults = []
    for name, (size, sha256) in listed_files().items():
        path = root / name
        if not path.is_file():
            faults.append(f"{name}: missing")
        elif path.stat().st_size != size or sha256_file(path) != sha256:
            faults.append(f"{name}: differs")
    return faults


def _unpack(archive: Path, target: Path, origin: str) -> None:
    """Unpacks the files of the manifest, or none. ``origin`` is what the user calls the zip file."""
    if not zipfile.is_zipfile(archive):
        with archive.open("rb") as f:
            page = f.read(512).lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "a web page, perhaps one that asks to sign in or to confirm," if page else "something else"
        raise UserError(
            f"{origin}: gives {what} instead of a zip file; download it in a browser and give its path with --url"
        )
    manifest = listed_files()
    partial = _beside(target, f"{uuid.uuid4().hex[:8]}.partial")
    try:
        faults = []
        with zipfile.ZipFile(archive) as content:
            members = {info.filename: info for info in content.infolist()}
            anchors = [name for name in members if f"/{name}".endswith(f"/{_ANCHOR}")]
            # The names written to are the manifest's own: whatever the zip file calls its members, none escapes.
            folder = min(anchors, key=len).removesuffix(_ANCHOR) if anchors else ""
            with console.Progress(len(manifest), "unpack", "files") as progress:
                for name, (size, sha256) in manifest.items():
                    info = members.get(folder + name)
                    if info is None:
                        faults.append(f"{name}: missing")
                    elif info.file_size != size or _extract(content, info, partial / name) != sha256:
                        faults.append(f"{name}: differs")
                    progress.advance()
        if faults:
            raise UserError(f"{origin}: not the MoNuSeg of LViT: {few(faults, 3, count=True)}")
        if target.is_dir():
            target.rmdir()  # empty, as was found before
        partial.rename(target)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{origin}: a damaged zip file ({error}); download it again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_place(target: Path, needed: int) -> None:
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{target}: cannot be made ({error.strerror}); choose another place") from error
    check_free_space(target, needed, "needs", "free some, or choose another place")


def _beside(target: Path, suffix: str) -> Path:
    return target.absolute().with_name(f".{target.absolute().name}.{suffix}")


def _extract(content: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> str:
    """Unpacks one member and gives its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    source: IO[bytes]
    with content.open(info) as source, path.open("wb") as f:
        while piece := source.read(_PIECE):
            digest.update(piece)
            f.write(piece)
        f.flush()
        os.fsync(f.fileno())
    return digest.hexdigest()


def direct_url(url: str) -> str:
    """The address of a file behind Google Drive's share link, past its question about large files."""
    match = re.match(r"https://(?:drive|docs)\.google\.com/(?:file/d/|(?:open|uc)\?(?:.*&)?id=)([\w-]+)", url)
    if match is None:
        if re.match(r"https://drive\.google\.com/drive/.*folders/", url):
            raise UserError(f"{url}: a folder on Google Drive; download it in a browser and give its path with --url")
        return url
    return f"https://drive.usercontent.google.com/download?id={match[1]}&export=download&confirm=t"


def listed_files() -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 of every file, by its path in the data set."""
    entries: dict[str, tuple[int, str]] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return entries
