"""Options declared once: what the command line, the functions and the reference page make of the records."""

import dataclasses
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

import textdiff
from textdiff.cli import COMMANDS, GROUPS
from textdiff.commands.make import usage
from textdiff.commands.reference import page
from textdiff.errors import UserError
from textdiff.options import extract, fit, run, shared
from textdiff.options.option import Exists
from textdiff.options.record import options, summary
from textdiff.options.run import Score

ROOT = Path(__file__).resolve().parents[2]
EVERY = [(name, option) for name, command in COMMANDS.items() for option in options(command.record)]
FUNCTIONS = {
    **{
        name: name.replace("-", "_")
        for name in COMMANDS
        if " " not in name and name not in ("demo", "doctor", "download", "start")
    },
    "next": "rank",
}


# Declarations


@pytest.mark.parametrize("name", COMMANDS)
def test_every_field_is_an_option_with_a_help_that_tells_its_default(name):
    record = COMMANDS[name].record
    assert {field.name for field in dataclasses.fields(record)} == {option.name for option in options(record)}
    for option in options(record):
        assert option.help[0].isupper(), option.flag
        assert option.help.endswith((".", ")")), option.flag
        assert not option.help.startswith(("Of ", "See ", "As ")), option.flag
        if option.default is None:
            assert option.default_in_words() or "default" in option.help or "must be given" in option.help, option.flag


def test_a_name_means_one_kind_of_value_in_every_command():
    kinds: dict[str, set[object]] = {}
    for _, option in EVERY:
        if not option.positional:
            kinds.setdefault(option.flag, set()).add(option.item)
    mixed = {flag: items for flag, items in kinds.items() if len(items) > 1}
    assert not mixed


@pytest.mark.parametrize(
    ("choices", "place", "name"),
    [
        (fit.Variant, "models.networks.variants", "VARIANTS"),
        (run.Metric, "pipeline.evaluation.object_scores", "METRICS"),
        (run.Objects, "metrics.instances", "METHODS"),
        (shared.Protocol, "options.protocol", "PROTOCOLS"),
        (shared.Truth, "pipeline.evaluation.image_predictions", "TRUTHS"),
        (shared.Jitter, "pipeline.pretraining.config", "SCALES"),
    ],
)
def test_choices_are_those_that_the_stage_knows(choices, place, name):
    module = __import__(f"textdiff.{place}", fromlist=[name])
    assert set(get_args(choices)) == set(getattr(module, name))


@pytest.mark.parametrize(
    ("command", "name", "place", "registry"),
    [
        ("fit", "model", "models.networks.models", "MODELS"),
        ("extract", "preset", "readers.presets", "PRESET_KINDS"),
        ("pretrain", "config", "pipeline.pretraining.config", "CONFIGS"),
    ],
)
def test_choices_of_an_option_are_those_that_the_stage_knows(command, name, place, registry):
    module = __import__(f"textdiff.{place}", fromlist=[registry])
    option = next(option for option in options(COMMANDS[command].record) if option.name == name)
    assert set(option.completions()) == set(getattr(module, registry))


def test_symmetries_are_as_many_as_the_stage_has():
    from textdiff.images.images import SYMMETRIES

    assert extract.SYMMETRIES == SYMMETRIES


def test_reference_page_is_what_the_program_makes():
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == page(), "run `make reference`"


# The command line


@pytest.fixture(scope="module")
def helps(tmp_path_factory, textdiff_once) -> dict[str, str]:
    root = tmp_path_factory.mktemp("helps")
    return {name: textdiff_once(root, *name.split(), "--help").stdout for name in COMMANDS}


def test_summaries_fit_a_line_of_eighty_columns_and_are_shown_where_no_command_is_named(textdiff_once, tmp_path):
    lines = textdiff_once(tmp_path, "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines[lines.index("Commands:") :] if line.endswith("...")]
    for name in {name.split()[0] for name in COMMANDS}:
        expected = GROUPS.get(name) or summary(COMMANDS[name].record)
        assert any(line.split(maxsplit=1) == [name, expected] for line in lines), name
    assert textdiff_once(tmp_path).stdout.splitlines() == lines
    for group in GROUPS:
        assert "..." not in (shown := textdiff_once(tmp_path, group, "--help").stdout).split("Commands:")[1]
        assert textdiff_once(tmp_path, group).stdout == shown


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_option_under_its_heading_with_its_default(helps, name):
    text = " ".join(helps[name].split())
    places = [text.index(f"{heading}: ") for heading in dict.fromkeys(o.group for o in options(COMMANDS[name].record))]
    assert places == sorted(places)
    for option in options(COMMANDS[name].record):
        assert option.flag in text
        for choice in option.choices:
            assert choice in text
        default = option.default_in_words()
        assert not default or f"[default: {default}]".replace(" ", "") in text.replace(" ", "")


def test_defaults_of_presets_and_recipes_are_told_with_their_values(helps):
    assert (
        "[default: 50,150,250; 0,50,150,250 for --preset nano; 0 for --preset rgb, --preset filters, --preset imagenet]"
        in " ".join(helps["extract"].split())
    )
    # A line may end within the hyphenated name.
    assert "0.002forfair,fair-long" in "".join(helps["fit"].split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["extract", "--datset", "folder"], ["--dataset", "`textdiff extract --help`"]),
        (["data", "check", "--dat", "x"], ["--data", "`textdiff data check --help`"]),
        (["exract"], ["extract", "`textdiff --help`"]),
        (["extract", "--dataset", "monusge"], ["did you mean monuseg?"]),
        (["extract", "--dataset", "folder", "--preset", "nanno"], ["did you mean nano?"]),
        (["extract", "--dataset", "folder", "--data", "cache/fold"], ["did you mean cache/folder?"]),
        (["extract", "--dataset", "folder", "--data", "cahce/folder"], ["did you mean cache/folder?"]),
        (["fit", "--cache", "cache/monusge.zarr"], ["did you mean cache/monuseg.zarr?", "textdiff extract"]),
        (["fit", "--cache", "cache/monuseg.zarr", "--recipe", "fiar"], ["did you mean fair?"]),
        (["fit", "--cache", "cach"], ["cach: no such cache; make one with"]),
        (["fit", "--cache", "cache/foldr"], ["foldr: no such cache; make one with"]),
        (["score", "--run", "runs/monuseg-1"], ["did you mean runs/monuseg-12?"]),
        (["score", "--run", "run"], ["run: no such run directory; make one with"]),
        (["score", "--runs", "rnus"], ["rnus: no run yet (did you mean runs?)"]),
        (["score", "--runs", "runs/monuseg-12"], ["--runs runs/monuseg-12: is a run", "--run runs/monuseg-12"]),
        (["score", "--metrics", "dice,iuo", "--run", "runs/monuseg-12"], ["--metrics iuo", "did you mean iou?"]),
        (["predict", "net.ptt"], ["IMAGE net.ptt", "did you mean net.pt?"]),
        (["predict", "net.pt", "--format", "geosjon"], ["did you mean geojson?"]),
        (["cache", "info", "cache/monuseg.zar"], ["did you mean cache/monuseg.zarr?"]),
        (["download", "adm256"], ["did you mean adm-256?"]),
        (
            ["report", "--run", "runs/monuseg-12", "--out", "texts.csv"],
            ["--out texts.csv: name a file that ends"],
        ),
        (["report", "--run", "cache/folder"], ["cache/folder: not a run directory"]),
        (["report", "runs/monuseg-12"], ["--run runs/monuseg-12", "`textdiff report --help`"]),
        (["report", "runs"], ["a run is given as --run runs (", "`textdiff report --help`"]),
        (["score", "--runs", "runs/a", "runs/monuseg-12", "runs"], ["`textdiff combine` makes one run of several"]),
        (["score", "--runs", "runs/monuseg-12", "cache/folder"], ["`textdiff combine` makes one run of several"]),
        (["score", "--run", "runs/monuseg-12", "cache/folder"], ["`textdiff combine` makes one run of several"]),
        (["score", "--runs", "runs", "runs/monuseg-12"], ["a run is given as --run runs/monuseg-12 ("]),
        (["ablate", "--cache", "cache/monuseg.zarr", "--set", "widht=9"], ["did you mean width?"]),
        (["extract"], ["--dataset: is missing"]),
        (["fit"], ["--cache: is missing", "--resume"]),
        (["fit", "--cache", "cache/monuseg.zarr", "--run", "runs/monuseg-12"], ["--run: is the run that --resume"]),
        (["fit", "--cache", "cache/monuseg.zarr", "--labels", "five"], ["--labels five: must be a whole number"]),
        (["fit", "--cache", "cache/monuseg.zarr", "--labels", "0"], ["--labels 0: must be at least 1"]),
        (["fit", "--cache", "cache/monuseg.zarr", "--learning-rate", "nan"], ["--learning-rate nan"]),
        (["predict", "net.pt", "--own-mpp", "inf"], ["--own-mpp inf: must be a finite number"]),
        (["score", "--tolerance", "inf", "--run", "runs/monuseg-12"], ["--tolerance inf: must be a finite number"]),
        (["extract", "--dataset", "folder", "--seed", "-1"], ["--seed -1: must be at least 0 and at most 4294967295"]),
        (["fit", "--cache", "cache/monuseg.zarr", "--seed", "4294967296"], ["--seed 4294967296: must be at least 0"]),
        (
            ["fit", "--cache", "cache/monuseg.zarr", "--ensemble", "1001"],
            ["--ensemble 1001: must be at least 1 and at"],
        ),
        (["fit", "--cache", "cache/monuseg.zarr", "--blocks", "8,8"], ["--blocks 8,8: names one twice"]),
        (["fit", "--cache", "cache/monuseg.zarr", "--blocks", "8,"], ["--blocks 8,: must be a whole number"]),
        (["fit", "--cache", ""], ["--cache: is empty"]),
        (["pretrain", "--data", "cache", "--out", "a.safetensors", "--scale", "0.5"], ["--scale 0.5: must be two"]),
    ],
)
def test_a_mistyped_word_gets_the_one_that_was_meant(textdiff_once, tmp_path, words, said):
    for directory in ("cache/monuseg.zarr", "cache/folder", "runs/monuseg-12"):
        (tmp_path / directory).mkdir(parents=True)
    for file in ("net.pt", "cache/monuseg.zarr/zarr.json", "runs/monuseg-12/config.json"):
        (tmp_path / file).touch()
    result = textdiff_once(tmp_path, *words, status=2)
    assert result.stderr.count("\n") == 1, result.stderr
    for part in said:
        assert part in result.stderr


@pytest.mark.parametrize("many", ["arguments", "argument(s)"])
def test_runs_that_are_named_plainly_are_told_of_combine_however_this_typer_says_it(tmp_path, monkeypatch, many):
    """Typer 0.15 has Click's own words, with a plural; later ones have a copy of Click with both in one."""
    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    command = SimpleNamespace(params=[SimpleNamespace(name="run")])
    context = SimpleNamespace(command_path="textdiff report", command=command, params={})
    error = SimpleNamespace(format_message=lambda: f"Got unexpected extra {many} (a b)", ctx=context)
    assert usage(error).startswith(f"Got unexpected extra {many} (a b); `textdiff combine` makes one run of several (")


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("extract --dtype fl", ["float16", "float32"]),
        ("extract --dataset m", ["monuseg", "mosmed"]),
        ("extract --backbone na", ["nano-he", "nano-cxr"]),
        ("score --metrics dice,a", ["dice,aji"]),
        ("predict --format geo", ["geojson"]),
        ("fit --rec", ["--recipe"]),
    ],
)
def test_a_shell_completes_names_and_values(tmp_path, typed, completed):
    words = {
        "_TEXTDIFF_COMPLETE": "complete_bash",
        "COMP_WORDS": f"textdiff {typed}",
        "COMP_CWORD": str(len(typed.split())),
    }
    result = subprocess.run(
        [sys.executable, "-m", "textdiff.cli"],
        cwd=tmp_path,
        env={**os.environ, **words},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.split() == completed, result.stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["fit", "--cache", "gone.zarr"], ["score"], ["fit", "--help"], ["download", "monuseg"]]
)
def test_what_needs_no_network_imports_none(tmp_path, words):
    code = (
        "import sys; sys.argv = ['textdiff', *sys.argv[1:]]\n"
        "import atexit, textdiff.cli\n"
        "atexit.register(lambda: print(sorted({'torch', 'zarr', 'numpy'} & set(sys.modules)), file=sys.stderr))\n"
        "textdiff.cli.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.stderr.splitlines()[-1] == "[]"


# The functions


@pytest.mark.parametrize(("command", "name"), FUNCTIONS.items())
def test_functions_have_the_options_of_their_commands(command, name):
    function, record = getattr(textdiff, name), COMMANDS[command].record
    assert list(inspect.signature(function).parameters) == list(inspect.signature(record).parameters)
    for option in options(record):
        assert f"    {option.name}: {option.help}" in function.__doc__
    assert "Raises:" in function.__doc__


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda here: textdiff.fit(here, epoch=3), r"fit: has no option epoch \(did you mean epochs\?\)"),
        (lambda here: textdiff.extract("folder", dta=here), r"extract: has no option dta \(did you mean data\?\)"),
        (lambda here: textdiff.score(here, zzz=1), "score: has no option zzz; there are .*metrics"),
        (lambda here: textdiff.extract(), "--dataset: is missing"),
        (lambda here: textdiff.extract("folder", here), "extract: too many positional arguments"),
        (lambda here: textdiff.fit(here, labels="5"), "--labels 5: must be a whole number"),
        (lambda here: textdiff.fit(here, seed=-1), "--seed -1: must be at least 0"),
        (lambda here: textdiff.extract(dataset="folder", data=here, seed=-1), "--seed -1: must be at least 0"),
        (lambda here: textdiff.fit(here, draw_seed=10**30), "--draw-seed 10+: is too large a number"),
        (lambda here: textdiff.predict(here, text="\udcff"), "--text: is not text in UTF-8"),
        (lambda here: textdiff.fit(here, labels=2.0), "--labels 2.0: must be a whole number"),
        (lambda here: textdiff.fit(here, labels=True), "--labels True: must be a whole number"),
        (lambda here: textdiff.fit(here, variant=None), "--variant None: must be one of full"),
        (lambda here: textdiff.fit(here, blocks=[]), "--blocks: is empty"),
        (lambda here: textdiff.fit(here, schedule="cosin"), r"did you mean cosine\?"),
        (lambda here: textdiff.score(here / "none"), "--run .*none: no such run directory"),
        (lambda here: textdiff.predict(here, overwrite="no"), "--overwrite no: must be True or False"),
        (lambda here: textdiff.ablate(here, set=["width=9"]), "--set .*: must be a mapping"),
    ],
)
def test_a_wrong_argument_is_one_clear_error(tmp_path, call, message):
    with pytest.raises(UserError, match=message):
        call(tmp_path)


def test_values_come_in_any_form_and_go_in_one(tmp_path):
    record = Score(tmp_path, metrics=["dice", "aji"], tolerance=1, cache=None)
    assert (record.run, record.metrics, record.tolerance) == (tmp_path, ("dice", "aji"), 1.0)
    assert Score(str(tmp_path), metrics="dice,aji", tolerance=1.0) == record


def test_a_path_is_looked_for_before_any_work(tmp_path):
    marked = {(name, option.flag) for name, option in EVERY if any(isinstance(mark, Exists) for mark in option.marks)}
    assert {("fit", "--cache"), ("score", "--run"), ("extract", "--data"), ("predict", "IMAGE")} <= marked
