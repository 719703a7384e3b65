"""What is in the repository is in the package."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_subpackage_is_listed():
    found = {f"textdiff.{path.parent.name}" for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"}
    assert set(SETTINGS["packages"]) == found | {"textdiff"}


def test_every_data_file_beside_the_modules_is_listed():
    listed = {path for pattern in SETTINGS["package-data"]["textdiff"] for path in ROOT.glob(pattern)}
    packages = [ROOT / name.removeprefix("textdiff.") for name in SETTINGS["packages"] if "." in name]
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
