"""MoNuSeg: in the LViT layout, or in the challenge's own.

    DIR/
        MoNuSeg 2018 Training Data/Tissue Images/*.tif, .../Annotations/*.xml
        MoNuSegTestData/*.tif, *.xml
        texts.csv    of our own making: columns image and text, and if you like split and group

Any folders will do: an image belongs to the outlines of its name, and it is a test image if a folder above it is
called after the test. The challenge (https://monuseg.grand-challenge.org/Data/) comes without texts and without a
validation set.
"""

__all__ = ["read_monuseg"]

import re
from pathlib import Path

from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.lvit import read_lvit
from textdiff.readers.names import error, is_utf8, key_of, note, relative, sort_problems, unique_ids
from textdiff.readers.sample import Problem, Sample, Split
from textdiff.readers.splits import draw_splits, parse_split, settle_splits
from textdiff.readers.texts import texts_beside

_TEST = re.compile("(monuseg)?test(s|ing)?(sets?|data|images?|imgs?|cases?)?")


def read_monuseg(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    """Reads MoNuSeg in the LViT layout or, if there are ``.xml`` outlines, in the challenge's own.

    Raises:
        UserError: as ``read_lvit`` and ``read_folder``.
    """
    if root.is_dir() and not (root / "Train_Folder").is_dir() and next(root.glob("**/*.xml"), None) is not None:
        return _read_challenge(root, options)
    return read_lvit(root, options)


def _read_challenge(root: Path, options: ReadOptions) -> tuple[list[Sample], list[Problem]]:
    if options.classes:
        raise UserError(f"--classes: the outlines in {root} tell nuclei apart, not classes; leave the option out")
    if options.unlabelled_value is not None:
        raise UserError(f"--unlabelled-value: the outlines in {root} say all; leave the option out")
    if options.test is not None:
        raise UserError(f"--test: {root} has its own test images; leave the option out")
    problems: list[Problem] = []
    files: dict[str, list[Path]] = {}
    outlines: dict[str, list[Path]] = {}
    for path in sorted(root.glob("**/*")):
        ending, hidden = path.suffix.lower(), any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or ending not in (".tif", ".tiff", ".xml") or not path.is_file():
            continue
        if not is_utf8(str(path.relative_to(root))):
            problems.append(error(relative(root, path), "has a name that is not UTF-8", "rename it"))
        else:
            (outlines if ending == ".xml" else files).setdefault(key_of(path.name), []).append(path)
    for key in sorted(outlines.keys() - files.keys()):
        where = relative(root, outlines[key][0])
        problems.append(error(where, "are outlines without an image", "add the image or remove it"))
    first = {key: paths[0] for key, paths in files.items()}
    texts = texts_beside(root, first, problems, "the challenge comes without any")
    samples = []
    for key, paths in files.items():
        where, own = relative(root, paths[0]), outlines.get(key, [])
        if own[1:]:
            what = f"are second outlines of {where}"
            problems.append(error(relative(root, own[1]), what, "keep one of them"))
        elif row := texts.get(key):
            if not own:
                problems.append(note(where, "has no outlines: it is unlabelled"))
            split = parse_split(row.split) or _split_of(paths[0].relative_to(root))
            group, mask = row.group or _patient(key), own[0] if own else None
            samples += [Sample(key, split, path, mask, row.text, group, instances=True) for path in paths]
    samples = unique_ids(root, samples, problems)
    if options.draws:
        training = [sample for sample in samples if sample.split == "train"]
        samples = [sample for sample in samples if sample.split != "train"] + draw_splits(training, options)
    return settle_splits(root.name, samples, problems, ReadOptions(), given=True), sort_problems(problems)


def _split_of(path: Path) -> Split:
    """By the words in its folders' names: ``MoNuSegTestData`` and ``test_images`` are of the test, not ``latest``."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", " ".join(path.parts[:-1]))]
    if any(map(_TEST.fullmatch, words)):
        return "test"
    return "val" if "val" in map(parse_split, words) else "train"


def _patient(name: str) -> str:
    """The patient in a name of The Cancer Genome Atlas (TCGA-18-5592-01Z-...), else nothing."""
    found = re.match(r"TCGA-\w+-\w+", name)
    return found.group() if found else ""
