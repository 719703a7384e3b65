"""Splits that are drawn: whole groups, the shares asked for, whatever the order of the files."""

import unicodedata
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.errors import UserError
from textdiff.options.reading import ReadOptions
from textdiff.readers.sample import Sample
from textdiff.readers.splits import draw_splits
from textdiff.tests.reader_cases import read_lab


def test_drawn_splits_are_said_to_be_missing_until_they_are_drawn(make_lab):
    root = make_lab(split=False)
    samples, problems = read_lab(root)
    assert {s.split for s in samples} == {"train"}
    assert any("draw some with --val 0.2 --test 0.2" in str(problem) for problem in problems)
    drawn, problems = read_lab(root, val=0.25, test=0.25, seed=1)
    assert sorted(s.split for s in drawn) == ["test", "train", "train", "val"]
    assert not any("has no splits" in str(problem) for problem in problems)


def test_a_group_is_the_same_however_its_accents_are_composed(make_lab):
    names = [unicodedata.normalize(form, "Jérôme") for form in ("NFC", "NFC", "NFD", "NFC")]
    samples, problems = read_lab(make_lab(group=names))
    assert {sample.group for sample in samples} == {names[0]}
    assert [problem.where for problem in problems if "of the same group" in problem.what] == ["c", "d"]


def pool(groups: list[int], labelled: list[bool]) -> list[Sample]:
    mask = Path("m.png")
    return [
        Sample(f"i{number}", "train", Path(f"i{number}.png"), mask if own else None, "", f"p{group}" if group else "")
        for number, (group, own) in enumerate(zip(groups, labelled, strict=True))
    ]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=6, max_size=60),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_no_group_is_in_two_splits_and_the_order_of_files_does_not_matter(cases, seed, random):
    samples = pool(*map(list, zip(*cases, strict=True)))
    options = ReadOptions(val=0.2, test=0.2, seed=seed)
    try:
        drawn = draw_splits(samples, options)
    except UserError:
        return
    assert [s.id for s in drawn] == [s.id for s in samples]
    splits: dict[str, set[str]] = {}
    for sample in drawn:
        splits.setdefault(sample.group or sample.id, set()).add(sample.split)
    assert all(len(found) == 1 for found in splits.values())
    shuffled = random.sample(samples, len(samples))
    assert {(s.id, s.split) for s in draw_splits(shuffled, options)} == {(s.id, s.split) for s in drawn}


def test_shares_are_met_without_groups_and_differ_by_seed():
    samples = pool([0] * 200, [True] * 200)
    drawn = [draw_splits(samples, ReadOptions(val=0.2, test=0.1, seed=seed)) for seed in (0, 0, 1)]
    assert [[s.split for s in d].count("val") for d in drawn] == [40, 40, 40]
    assert [[s.split for s in d].count("test") for d in drawn] == [20, 20, 20]
    assert drawn[0] == drawn[1] != drawn[2]


def test_only_annotated_images_are_drawn_for_validation_and_test():
    samples = pool([0] * 100, [number < 10 for number in range(100)])
    drawn = draw_splits(samples, ReadOptions(val=0.2, test=0.2))
    assert all(s.mask for s in drawn if s.split != "train")
    assert [s.split for s in drawn].count("val") == 2


def test_images_that_are_added_move_few_of_those_there_were():
    before = draw_splits(pool([0] * 100, [True] * 100), ReadOptions(test=0.2))
    after = draw_splits(pool([0] * 110, [True] * 110), ReadOptions(test=0.2))
    assert sum(a.split != b.split for a, b in zip(before, after, strict=False)) < 10
