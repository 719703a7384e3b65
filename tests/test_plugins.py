import subprocess
import sys
from pathlib import Path

import pytest

from textdiff.errors import UserError
from textdiff.plugins import registry

OWN = {"ours": 1}


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """Puts a package with entry points where Python finds it, without installing anything."""

    def make(name: str, entries: dict[str, list[str]], **modules: str) -> Path:
        folder = tmp_path / name
        info = folder / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        groups = (f"[textdiff.{group}]\n" + "\n".join(lines) for group, lines in entries.items())
        (info / "entry_points.txt").write_text("\n".join(groups))
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
        return folder

    return make


def test_a_plug_in_is_imported_when_it_is_asked_for(other_package):
    joined = registry("things", OWN, int)
    assert dict(joined) == OWN
    other_package("lab", {"things": ["theirs = lab_things:VALUE"]}, lab_things="VALUE = 2")
    assert list(joined) == ["ours", "theirs"]
    assert len(joined) == 2
    assert "theirs" in joined
    assert "lab_things" not in sys.modules
    assert joined["theirs"] == 2
    assert dict(joined) == {"ours": 1, "theirs": 2}
    assert joined.get("nobodys") is None


@pytest.mark.parametrize(
    ("entry", "module", "words"),
    [
        ("it = lab_bad:VALUE", "import nowhere_to_be_found", ("ModuleNotFoundError", "nowhere_to_be_found")),
        ("it = lab_bad:VALUE", "VALUES = 2", ("AttributeError", "VALUE")),
        ("it = lab_bad:VALUE", "1 / 0", ("ZeroDivisionError",)),
        ("it = lab_bad:VALUE", "VALUE = 'two'", ("is a str, and must be a int",)),
        ("ours = lab_bad:VALUE", "VALUE = 2", ("ours: is the name of a plug-in", "taken by textdiff itself")),
        ("it = lab_bad:VALUE\nIt = lab_bad:VALUE\nit = lab_bad:VALUE", "VALUE = 2", ("taken by lab 1.2",)),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_refused_in_one_line(other_package, monkeypatch, entry, module, words):
    monkeypatch.delitem(sys.modules, "lab_bad", raising=False)
    other_package("lab", {"things": [entry]}, lab_bad=module)
    joined = registry("things", OWN, int)
    name = entry.split()[0]
    with pytest.raises(UserError) as refused:
        joined[name]
    said = str(refused.value)
    assert "\n" not in said
    for word in (name, "lab 1.2", "textdiff.things", *words):
        assert word in said
    assert next(iter(joined)) == "ours"  # the list can still be shown
    monkeypatch.delitem(sys.modules, "lab_bad", raising=False)


def test_the_help_looks_for_no_plug_in():
    program = (
        "import sys, textdiff.cli, textdiff.plugins as plugins\nsys.argv = ['textdiff', '--help']\n"
        "try: textdiff.cli.main()\nfinally: print(plugins._found.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "0", done
