"""Figure 3 of the paper: what each decoder block holds at each diffusion step, with and without the text."""

__all__ = ["fewest_bytes", "sweep", "sweep_plan", "sweep_table"]

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.experiment import Experiment, Plan, fit_options, make_job
from textdiff.experiments.plots import error_bars, new_figure, save_figure
from textdiff.experiments.result_tables import (
    Outcome,
    Table,
    compared,
    notes,
    points,
    score,
    score_columns,
    title,
    write_tables,
)
from textdiff.experiments.results import Result, gather
from textdiff.experiments.setup import conduct, draws_all, repetitions
from textdiff.models.networks.head import usual_width
from textdiff.options.experiments import VARIED, Sweep
from textdiff.options.fit import Variant

TEXT: dict[bool, Variant] = {True: "full", False: "no-text"}
_Key = tuple[int | None, int | None, bool]
"""Block, step, and whether with text; None stands for all of them together."""


def sweep(options: Sweep) -> Outcome:
    """Fits and scores a head on each block at each step, going on where it was stopped; makes table and figure.

    Each job is a run directory in the experiment's own.

    Raises:
        UserError: bad options, or others than the experiment was begun with.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    cache = FeatureCache.open(options.cache)
    experiment, failures = conduct(options, sweep_plan(options, cache), cache)
    # Where all images are drawn, no other draw differs.
    more = "--seeds" if draws_all(cache, options.labels) else "--draws"
    return sweep_table(experiment, options.truth, more)._replace(failures=failures)


def sweep_plan(options: Sweep, cache: FeatureCache) -> Plan:
    """A head on one block at one step, for all of them, with and without text.

    All heads on a block are one group, so the block is read once. All have one width, so that a block is not judged by
    its number of channels: by default that of a head on the whole cache. If ``together``, there are also heads on all
    blocks at one step, on a block at all steps, and on all at all: what fewer of them cost is measured against these.
    One block is all blocks, and one step all steps: it is fitted on once.

    Raises:
        UserError: a block or step is not in the cache, there is nothing to put together, or other options that the
            cache does not allow.
    """
    blocks, steps = options.blocks or list(cache.blocks), options.steps or list(cache.steps)
    for name, values, there in (("blocks", blocks, list(cache.blocks)), ("steps", steps, list(cache.steps))):
        if any(value not in there for value in values):
            raise UserError(
                f"--{name} {','.join(map(str, values))}: name some of those in {cache.path}: "
                f"{','.join(map(str, there))}"
            )
    if options.together and len(blocks) == len(steps) == 1:
        raise UserError("--together: one block at one step is fitted on once; name more of them, or leave it out")
    if len(cache.blocks) == 1:
        console.warn(f"{cache.path} holds one block; `textdiff extract --blocks all` makes a cache with all of them")
    texts = (True, False) if cache.text_dim is not None else (False,)
    width = usual_width([channels for channels, _, _ in cache.blocks.values()], len(cache.steps))
    common = options.fit_config(options.cache, options.device)
    base = replace(common, width=common.width or width)
    of_blocks: list[int | None] = [*sorted(blocks), *([None] if options.together and len(blocks) > 1 else [])]
    of_steps: list[int | None] = [*sorted(steps), *([None] if options.together and len(steps) > 1 else [])]
    jobs = []
    for block, (draw, seed), step, text in product(
        of_blocks, repetitions(options, cache, options.labels), of_steps, texts
    ):
        read = tuple(sorted(blocks)) if block is None else (block,)
        times = tuple(sorted(steps)) if step is None else (step,)
        nbytes = sum(cache.layout.block_nbytes(one) for one in read) * len(times) // len(cache.steps)
        named = ("ball" if block is None else f"b{block:02d}", "tall" if step is None else f"t{step:03d}")
        variant = replace(base, variant=TEXT[text], labels=options.labels, draw_seed=draw, seed=seed)
        jobs.append(
            make_job(
                f"{'-'.join(named)}-{TEXT[text]}-d{draw}-s{seed}",
                {"block": block, "step": step, "text": text, "row_bytes": nbytes},
                named[0],
                replace(variant, blocks=read, steps=times),
            )
        )
    record = {
        "blocks": sorted(blocks),
        "steps": sorted(steps),
        "labels": options.labels,
        "draws": options.draws,
        "seeds": options.seeds,
        **fit_options(base, VARIED),
    }
    return Plan("sweep", record, options.split, jobs)


def sweep_table(experiment: Experiment, truth: str, more: str) -> Outcome:
    """The table and the figure of what has finished; ``more`` is the option that adds runs which differ."""
    results: dict[_Key, Result] = {(r.point["block"], r.point["step"], r.point["text"]): r for r in gather(experiment)}
    blocks, steps = ({key[i] for key in results} for i in (0, 1))
    whole = {
        text: result
        for (block, step, text), result in results.items()
        if None in blocks | steps and (block is None or len(blocks) == 1) and (step is None or len(steps) == 1)
    }
    # The Dice that comes first, and where images lack a class that of the classes they have.
    metrics = {title: metric for title, metric in score_columns(results.values(), truth).items() if "Dice" in title}
    main = f"dice_{truth}"
    rows, records = [], []
    for block, step in sorted({key[:2] for key in results}, key=lambda pair: [(one is None, one) for one in pair]):
        with_text, without = results.get((block, step, True)), results[block, step, False]
        both = (with_text, without)
        pairs = [[result.estimate(metric) if result else None for result in both] for metric in metrics.values()]
        gain = with_text.minus(without, main) if with_text else None
        line = ["all" if one is None else str(one) for one in (block, step)]
        line += [f"{without.point['row_bytes'] / 1e6:.3g}", *(score(one) for pair in pairs for one in pair)]
        line += compared(gain)
        if whole:
            cost = (with_text or without).minus(whole[with_text is not None], main)
            line += compared(cost)
        rows.append(line)
        records += with_text.records(without) if with_text else []
        records += without.records(None)
    titles = [title.replace("Dice %", f"Dice % {text}") for title in metrics for text in ("with text", "without")]
    columns = ("block", "step", "MB a row", *titles, "text against none, points", "")
    columns += ("against all, points", "") if whole else ()
    said = [*fewest_bytes(results.values(), whole, main, more), *notes(experiment, results.values(), truth)]
    table = Table(columns, rows, said)
    outcome = write_tables(experiment, table, records, {"truth": truth})
    return outcome._replace(files=[*outcome.files, *_draw(experiment, results, truth)])


def fewest_bytes(results: Iterable[Result], whole: Mapping[bool, Result], metric: str, more: str) -> list[str]:
    """A line that names the fewest bytes a row that were not seen to lose against all; none where nothing is compared.

    With text where there is one. Of as many bytes the better. Where nothing can be seen, it advises ``more``.
    """
    if not whole:
        return []
    text = max(whole)
    costs = [
        (result.point, cost)
        for result in results
        if result.point["text"] == text and (cost := result.minus(whole[text], metric)) is not None
    ]
    judged = [(point, cost) for point, cost in costs if cost.low is not None]
    if not judged:
        why = [f"one run on {cost.alone} does not tell how others vary; take more {more}" for _, cost in costs]
        return [f"What fewer blocks or steps lose cannot be seen: {why[0]}."] if why else []
    found = [
        (point["row_bytes"], -cost.mean, point, cost) for point, cost in judged if not cost.verdict.startswith("lower")
    ]
    largest = whole[text].point["row_bytes"] / 1e6
    if not found:
        return [f"Every selection of fewer blocks or steps was seen to lose against all ({largest:.3g} MB a row)."]
    nbytes, _, point, cost = min(found, key=lambda one: one[:2])
    named = " ".join(f"--{name}s {point[name]}" for name in ("block", "step") if point[name] is not None)
    return [
        f"Fewest bytes without a loss seen: textdiff extract {named}, {nbytes / 1e6:.3g} of {largest:.3g} MB a row, "
        f"{points(cost)} points. That none was seen does not say that there is none."
    ]


def _draw(experiment: Experiment, results: dict[_Key, Result], truth: str) -> list[Path]:
    texts = [text for text in (True, False) if any(key[2] == text for key in results)]
    blocks, steps = (sorted({one for key in results if (one := key[i]) is not None}) for i in (0, 1))
    figure, axes = new_figure(1.2 + len(texts) * max(2.8, 0.42 * len(blocks)), 3.6, len(texts))
    for ax, text in zip(axes, texts, strict=True):
        for index, step in enumerate(steps):
            # By place and not by number, as blocks need not be evenly spaced; steps side by side.
            x = [place + 0.16 * (index - (len(steps) - 1) / 2) for place in range(len(blocks))]
            estimates = [results[block, step, text].estimate(f"dice_{truth}") for block in blocks]
            error_bars(ax, x, estimates, index, f"t = {step}", linewidth=1.0)
        ax.set_xticks(range(len(blocks)), [str(block) for block in blocks])
        ax.set_xlabel("decoder block")
        ax.set_title("with text" if text else "without text", fontsize=10)
    axes[0].set_ylabel("Dice, %")
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False, fontsize=9, title="diffusion step", title_fontsize=9)
    figure.suptitle(f"{title(experiment, truth)}; bars: 95% intervals", fontsize=9)
    return save_figure(figure, experiment.path / "sweep")
