"""What several tests share: the oracles, how they fill weights, where real data is, and data sets made on the spot."""

import contextlib
import io
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

SHARED = Path(os.environ.get("TEXTDIFF_SHARED", Path(__file__).resolve().parents[2] / "shared"))

# What a script starts in the background ignores SIGINT, and so would every process that a test means to interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that takes long on a busy machine is no fault.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Shares the cores between xdist's workers, as workers that each use every core thrash.

    Processes that tests start inherit the number, as results depend on it. But what xdist's controller sets its workers
    inherit too, so it sets nothing.
    """
    workers = getattr(config, "workerinput", {}).get("workercount")
    if workers is None and config.getoption("dist", "no") != "no":
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // (workers or 1))))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def nothing_left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Removes what the tests wrote, unless one failed.

    Not test by test, as ``tmp_path_retention_policy`` does: a path that comes again may be one that the program knows.
    """
    yield
    if not request.session.testsfailed:
        shutil.rmtree(tmp_path_factory.getbasetemp(), ignore_errors=True)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The CPU, and with ``-m gpu`` a GPU, on which float32 is then float32: without TF32."""
    with without_tf32():
        yield torch.device(request.param)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: bits depend on how many there are, and beside other work they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    yield
    products.allow_tf32, convolutions.allow_tf32 = before


def _fill(shapes: Mapping[str, Iterable[int]], seed: int) -> dict[str, torch.Tensor]:
    """Weights by the oracles' fill rule: a seeded draw per entry name (see the oracles' README)."""
    filled = {}
    for name, shape in shapes.items():
        size = tuple(shape)
        w = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(size, dtype=np.float32)
        if len(size) > 1:
            w /= np.sqrt(np.prod(size[1:]))
        elif name.endswith("weight"):
            w = 1 + 0.1 * w
        else:
            w = 0.1 * w
        filled[name] = torch.from_numpy(np.asarray(w, dtype=np.float32))
    return filled


@pytest.fixture(scope="session")
def oracle_fill() -> Callable[[Mapping[str, Iterable[int]], int], dict[str, torch.Tensor]]:
    return _fill


@pytest.fixture(scope="session")
def oracles() -> Path:
    return Path(__file__).with_name("oracles")


@pytest.fixture(scope="session")
def real_monuseg() -> Path:
    if not (SHARED / "data/MoNuSeg").is_dir():
        pytest.skip(f"no MoNuSeg in {SHARED}")
    return SHARED / "data/MoNuSeg"


@pytest.fixture(scope="session")
def textdiff_once() -> Callable[..., SimpleNamespace]:
    """Runs a command in this process: ``textdiff_once(directory, *arguments, status=0)``.

    A process of its own per command would import PyTorch each time; what the process is for (signals, exit) has tests
    of its own that start one.
    """

    def run(directory: Path, *arguments: str, status: int = 0) -> SimpleNamespace:
        from textdiff import cli

        out, err = io.StringIO(), io.StringIO()
        before = sys.argv, Path.cwd()
        handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
        sys.argv = ["textdiff", *arguments]
        os.chdir(directory)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
                cli.main()
        finally:
            sys.argv = before[0]
            os.chdir(before[1])
            for one, handler in handlers.items():
                signal.signal(one, handler)
        result = SimpleNamespace(status=stop.value.code, stdout=out.getvalue(), stderr=err.getvalue())
        assert result.status == status, result.stderr
        return result

    return run


@pytest.fixture(scope="module")
def proxy() -> Iterator[Any]:
    """What stands before a bucket of our own, ``s3://bucket``, in the environment of this process."""
    from textdiff.tests.object_store import bucket

    with bucket() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the 256x256 network's topology, 18 decoder blocks, with 32 and 64 channels and random weights."""
    from textdiff.models.backbones.checkpoints import save_unet
    from textdiff.models.backbones.unet import UNet

    unet = UNet(64, 3, 32, 6, 2, (2, 4, 8), (1, 1, 1, 1, 2, 2), 4, 32, True, True)
    unet.load_state_dict(_fill({name: value.shape for name, value in unet.state_dict().items()}, seed=5))
    path = tmp_path_factory.mktemp("backbone") / "tiny.safetensors"
    save_unet(unet, path)
    return path


def _draw_case(number: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) of dark discs on pink, and its mask (H, W) in 0/255."""
    draw = np.random.default_rng([7, number])
    y, x = np.mgrid[:height, :width] + 0.5
    inside = np.zeros((height, width), bool)
    for _ in range(6):
        cy, cx, radius = draw.uniform(0, height), draw.uniform(0, width), draw.uniform(0.06, 0.15) * min(height, width)
        inside |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    image = np.where(inside[..., None], (90, 50, 130), (230, 190, 215)) + draw.normal(0, 8, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8), inside.astype(np.uint8) * 255


def _make_lvit(
    root: Path,
    n_train: int = 3,
    n_val: int = 1,
    n_test: int = 2,
    size: int | tuple[int, int] = 64,
    qata: bool = False,
    text: str = "The nuclei are {}.",
    seed: int = 0,
) -> Path:
    """Writes a data set in the LViT layout and returns ``root``. Ids are ``train_000`` ...; a split of 0 is left out.

    Extensions differ as in the published files: test images are TIFF, their masks and the names in the table PNG. With
    ``qata`` masks are called ``mask_<image>`` and the table names the masks. ``size`` is a side or (height, width).
    """
    from openpyxl import Workbook
    from PIL import Image

    height, width = (size, size) if isinstance(size, int) else size
    number = 1000 * seed
    for split, count in (("Train", n_train), ("Val", n_val), ("Test", n_test)):
        if count == 0:
            continue
        folder = root / f"{split}_Folder"
        for name in ("img", "labelcol"):
            (folder / name).mkdir(parents=True)
        book = Workbook()
        book.active.append(["Image", "Description"])
        for index in range(count):
            image, mask = _draw_case(number, height, width)
            stem = f"{split.lower()}_{index:03d}"
            mask_name = f"mask_{stem}.png" if qata else f"{stem}.png"
            Image.fromarray(image).save(folder / "img" / f"{stem}.{'tif' if split == 'Test' else 'png'}")
            Image.fromarray(mask).save(folder / "labelcol" / mask_name)
            book.active.append([mask_name, text.format("sparse" if number % 2 else "dense")])
            number += 1
        book.save(folder / f"{split}_text.xlsx")
    return root


@pytest.fixture(scope="session")
def make_lvit_once() -> Callable[..., Path]:
    """``make_lvit`` for fixtures that outlive one test: ``make_lvit_once(root, n_train=3, ...)``."""
    return _make_lvit


@pytest.fixture
def make_lvit(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small data set in the LViT layout: ``make_lvit(root="data", n_train=3, n_val=1, n_test=2, size=64)``.

    A relative ``root`` is below ``tmp_path``; see ``_make_lvit`` for the rest.
    """
    return lambda root="data", **options: _make_lvit(tmp_path / root, **options)
