"""Figure 3 of the paper: what each decoder block holds at each diffusion step, with and without the text."""

__all__ = ["sweep", "sweep_plan", "sweep_table"]

from dataclasses import replace
from pathlib import Path

from textdiff import console
from textdiff.cache import FeatureCache
from textdiff.errors import UserError
from textdiff.experiments.experiment import Experiment, Plan, fit_options, make_job
from textdiff.experiments.plots import error_bars, new_figure, save_figure
from textdiff.experiments.result_tables import (
    Outcome,
    Table,
    notes,
    points,
    score,
    score_columns,
    verdict,
    write_tables,
)
from textdiff.experiments.results import Result, gather
from textdiff.experiments.setup import conduct, repetitions
from textdiff.models.networks.head import REFERENCE_WIDTH
from textdiff.options.experiments import VARIED, Sweep
from textdiff.options.fit import Variant
from textdiff.pipeline.evaluation.image_predictions import TRUTHS

TEXT: dict[bool, Variant] = {True: "full", False: "no-text"}


def sweep(options: Sweep) -> Outcome:
    """Fits and scores a head on each block at each step, going on where it was stopped; makes table and figure.

    Each job is a run directory in the experiment's own.

    Raises:
        UserError: bad options, or others than the experiment was begun with.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    cache = FeatureCache.open(options.cache)
    experiment, failures = conduct(options, sweep_plan(options, cache), cache)
    return sweep_table(experiment, options.truth)._replace(failures=failures)


def sweep_plan(options: Sweep, cache: FeatureCache) -> Plan:
    """A head on one block at one step, for all of them, with and without text.

    All heads on a block are one group, so the block is read once. All have one width, so that a block is not judged by
    its number of channels: by default that of a head on the whole cache.

    Raises:
        UserError: a block or step is not in the cache, or other options that it does not allow.
    """
    blocks, steps = options.blocks or list(cache.blocks), options.steps or list(cache.steps)
    for name, values, there in (("blocks", blocks, list(cache.blocks)), ("steps", steps, list(cache.steps))):
        if any(value not in there for value in values):
            raise UserError(
                f"--{name} {','.join(map(str, values))}: name some of those in {cache.path}: "
                f"{','.join(map(str, there))}"
            )
    if len(cache.blocks) == 1:
        console.warn(f"{cache.path} holds one block; `textdiff extract --blocks all` makes a cache with all of them")
    texts = (True, False) if cache.text_dim is not None else (False,)
    narrowest = min(channels for channels, _, _ in cache.blocks.values())
    common = options.fit_config(options.cache, options.device)
    base = replace(common, width=common.width or min(REFERENCE_WIDTH, len(cache.steps) * narrowest))
    jobs = [
        make_job(
            f"b{block:02d}-t{step:03d}-{TEXT[text]}-d{draw}-s{seed}",
            {"block": block, "step": step, "text": text},
            f"b{block:02d}",
            replace(
                base,
                variant=TEXT[text],
                blocks=(block,),
                steps=(step,),
                labels=options.labels,
                draw_seed=draw,
                seed=seed,
            ),
        )
        for block in sorted(blocks)
        for draw, seed in repetitions(options, cache, options.labels)
        for step in sorted(steps)
        for text in texts
    ]
    record = {
        "blocks": sorted(blocks),
        "steps": sorted(steps),
        "labels": options.labels,
        "draws": options.draws,
        "seeds": options.seeds,
        **fit_options(base, VARIED),
    }
    return Plan("sweep", record, options.split, jobs)


def sweep_table(experiment: Experiment, truth: str) -> Outcome:
    """The table and the figure of what has finished."""
    results = {(r.point["block"], r.point["step"], r.point["text"]): r for r in gather(experiment)}
    # The Dice that comes first, and where images lack a class that of the classes they have.
    metrics = {title: metric for title, metric in score_columns(results.values(), truth).items() if "Dice" in title}
    main = f"dice_{truth}"
    rows, records, estimates = [], [], []
    for block, step in sorted({key[:2] for key in results}):
        with_text, without = results.get((block, step, True)), results[block, step, False]
        both = (with_text, without)
        pairs = [[result.estimate(metric) if result else None for result in both] for metric in metrics.values()]
        gain = with_text.minus(without, main) if with_text else None
        estimates += pairs[0]
        rows.append(
            [str(block), str(step), *(score(one) for pair in pairs for one in pair), points(gain), verdict(gain)]
        )
        records += with_text.records(without) if with_text else []
        records += without.records(None)
    titles = [title.replace("Dice %", f"Dice % {text}") for title in metrics for text in ("with text", "without")]
    columns = ("block", "step", *titles, "text against none, points", "")
    table = Table(columns, rows, notes(experiment, results.values(), estimates, truth))
    outcome = write_tables(experiment, table, records, {"truth": truth})
    return outcome._replace(files=[*outcome.files, *_draw(experiment, results, truth)])


def _draw(experiment: Experiment, results: dict[tuple[int, int, bool], Result], truth: str) -> list[Path]:
    texts = [text for text in (True, False) if any(key[2] == text for key in results)]
    blocks, steps = (sorted({key[i] for key in results}) for i in (0, 1))
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
    title = f"{experiment.dataset}, {experiment.plan.split} images, {TRUTHS[truth]}; bars: 95% intervals"
    figure.suptitle(title, fontsize=9)
    return save_figure(figure, experiment.path / "sweep")
