"""What is in the repository is in the package."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_subpackage_is_listed():
    depths = ("*", "*/*", "*/*/*")
    modules = [path.relative_to(ROOT).parent for depth in depths for path in ROOT.glob(f"{depth}/__init__.py")]
    found = {".".join(("textdiff", *path.parts)) for path in modules if path.parts[0] not in ("tests", ".mypy_path")}
    assert set(SETTINGS["packages"]) == found | {"textdiff"}


def test_every_data_file_beside_the_modules_is_listed():
    listed = {path for pattern in SETTINGS["package-data"]["textdiff"] for path in ROOT.glob(pattern)}
    packages = [ROOT.joinpath(*name.split(".")[1:]) for name in SETTINGS["packages"] if "." in name]
    files = {
        path
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    }
    zarr = {
        path for path in files if any(part.endswith(".zarr") for part in path.parts)
    }  # a cache made in the checkout
    assert files - zarr <= listed
