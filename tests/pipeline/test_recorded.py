"""Recorded steps train to the bits of steps that are not, on a stand-in for CUDA that records by doing again."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from textdiff.pipeline.fit import FitConfig, begin, fit, initial_network, resume
from textdiff.pipeline.training import recorded, trainer
from textdiff.pipeline.training.recorded import CudaRecorder, RecordedSteps
from textdiff.tests import experiment_cases as cases
from textdiff.tests.run_cases import stopped_after


class Again:
    """Does what was recorded again. Unlike a graph it would do it while recording, so that is undone."""

    def __init__(self, network):
        self.network, self.recorded, self.replayed = network, 0, 0

    def aside(self):
        return contextlib.nullcontext()

    def record(self, run):
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        with torch.random.fork_rng():
            results = run()
        self.network.load_state_dict(before)
        self.recorded += 1

        def replay():
            self.replayed += 1
            for place, new in zip(results, run(), strict=True):
                place.copy_(new)

        return results, replay


def small():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1))


def compute(network):
    return lambda inputs, labels: torch.nn.functional.cross_entropy(network(inputs[0][0]) * inputs[1], labels)


def train(network, steps, sizes, scale=2):
    rate, losses = torch.optim.Adam(network.parameters(), 1e-2), []
    draw = torch.Generator().manual_seed(0)
    for size in sizes:
        x = torch.randn(1, 3, size, size, generator=draw)
        losses.append(steps(([x], scale), (x[:, 0] > 0).long()))
        rate.step()
    return losses


def test_recorded_steps_give_the_weights_averages_and_losses_of_plain_ones():
    sizes = [4, 5, 4, 4, 5, 4, 5, 5]
    one, other = small(), small()
    recorder = Again(one)
    steps = RecordedSteps(one, compute(one), recorder)
    losses = train(one, steps, sizes)
    assert (steps.count, recorder.recorded, recorder.replayed) == (2, 2, 6)

    def plain(inputs, labels):
        loss = compute(other)(inputs, labels)
        other.zero_grad()
        loss.backward()
        return loss.detach()

    assert [float(loss) for loss in losses] == [float(loss) for loss in train(other, plain, sizes)]
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_what_is_no_tensor_tells_kinds_of_steps_apart(monkeypatch):
    monkeypatch.setattr(recorded, "MOST", 2)
    network = small()
    recorder = Again(network)
    steps = RecordedSteps(network, compute(network), recorder)
    for scale in (1, 2, 3, 1, 2, 3):
        train(network, steps, [4], scale)
    assert steps.count == 2  # the third kind runs as usual
    assert recorder.replayed == 2


def test_where_recording_fails_it_is_said_once_and_steps_run_as_usual(capsys):
    class Fails(Again):
        def record(self, run):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    one, other = small(), small()
    steps = RecordedSteps(one, compute(one), Fails(one))
    losses = train(one, steps, [4] * 5)
    assert steps.count == 0
    said = capsys.readouterr().err
    assert said.count("could not be recorded as a CUDA graph") == 1
    assert "not permitted when stream is capturing" in said
    assert [float(loss) for loss in losses] == [
        float(loss) for loss in train(other, RecordedSteps(other, compute(other), Again(other)), [4] * 5)
    ]


def test_the_recorder_of_cuda_warms_up_and_records_on_one_stream(monkeypatch):
    said = []
    stream = SimpleNamespace(wait_stream=lambda other: said.append("the side waits"))
    current = SimpleNamespace(wait_stream=lambda other: said.append("the current waits"))
    graph = SimpleNamespace(replay=lambda: said.append("replay"))

    @contextlib.contextmanager
    def context(*args, **options):
        said.append(options)
        yield

    for name, value in {
        "Stream": lambda device: stream,
        "graph_pool_handle": lambda: "pool",
        "current_stream": lambda device: current,
        "stream": context,
        "CUDAGraph": lambda: graph,
        "device": context,
        "graph": context,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    recorder = CudaRecorder(torch.device("cuda"))
    with recorder.aside():
        said.append("run")
    recorder.record(lambda: said.append("recorded"))[1]()
    assert said == [
        *("the side waits", {}, "run", "the current waits", {}),
        {"pool": "pool", "stream": stream, "capture_error_mode": "thread_local"},
        *("recorded", "replay"),
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return cases.make_cache(tmp_path_factory.mktemp("cache") / "c.zarr")


RECIPES = pytest.mark.parametrize(("recipe", "window"), [("default", None), ("fair", 16)])
# Of the two with overlapping max pooling PyTorch has no gradient on CUDA that repeats itself.
EXACT = ("unet", "text-unet", "swin-unet", "lvit")
NEARLY = ("resnet50-unet", "transunet")


def options(cache, device, recipe, window, epochs=4):
    return FitConfig(
        cache=cache.path, epochs=epochs, width=8, batch_size=2, recipe=recipe, window=window, device=str(device)
    )


def both_by_a_stand_in(config, tmp_path, monkeypatch):
    """The weights of a fit without recording, and with it."""
    made, plain = [], load_file(fit(config, tmp_path / "plain") / "head.safetensors")

    class Steps(RecordedSteps):
        def __init__(self, network, compute, recorder):
            made.append(Again(network))
            super().__init__(network, compute, made[-1])

    monkeypatch.setattr(recorded, "recorder_for", lambda device: "a recorder")
    monkeypatch.setattr(recorded, "RecordedSteps", Steps)
    other = load_file(fit(config, tmp_path / "recorded") / "head.safetensors")
    assert made[0].replayed > 0
    return plain, other


def both_on_a_gpu(config, tmp_path, monkeypatch, capsys):
    """The same by CUDA graphs."""
    kept, replayed = RecordedSteps.__call__, []
    monkeypatch.setattr(RecordedSteps, "__call__", lambda self, *a: (kept(self, *a), replayed.append(self.count))[0])
    found = load_file(fit(config, tmp_path / "recorded") / "head.safetensors")
    assert "could not be recorded" not in capsys.readouterr().err
    assert max(replayed) > 0
    monkeypatch.setattr(recorded, "RECORD", False)
    return load_file(fit(config, tmp_path / "plain") / "head.safetensors"), found


@RECIPES
def test_a_fit_of_recorded_steps_is_the_fit_without(cache, tmp_path, monkeypatch, recipe, window):
    """The trainer hands them what the whole network would see, with windows, and with texts of several lengths."""
    plain, other = both_by_a_stand_in(options(cache, "cpu", recipe, window), tmp_path, monkeypatch)
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize(("model", "recipe"), [("unet", "default"), ("swin-unet", "fair"), ("lvit", "fair")])
def test_networks_of_images_are_recorded_with_their_averages_and_dropout(cache, tmp_path, monkeypatch, model, recipe):
    """The first has running averages, the second drops branches, the third numbers."""
    config = FitConfig(cache=cache.path, model=model, recipe=recipe, epochs=4, batch_size=2, device="cpu")
    plain, other = both_by_a_stand_in(config, tmp_path, monkeypatch)
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("model", EXACT + NEARLY)
def test_on_a_gpu_networks_of_images_are_recorded(cache, tmp_path, monkeypatch, capsys, device, model):
    recipe = "default" if model in ("unet", "text-unet") else "fair"
    config = FitConfig(cache=cache.path, model=model, epochs=4, batch_size=2, recipe=recipe, device=str(device))
    plain, found = both_on_a_gpu(config, tmp_path, monkeypatch, capsys)
    near = {"atol": 0.0, "rtol": 0.0} if model in EXACT else {"atol": 0.02, "rtol": 0.02}
    for name in plain:
        torch.testing.assert_close(found[name], plain[name], **near)


@pytest.mark.gpu
@RECIPES
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_on_a_gpu_a_fit_of_recorded_steps_is_the_fit_without(
    cache, tmp_path, monkeypatch, capsys, device, recipe, window
):
    plain, found = both_on_a_gpu(options(cache, device, recipe, window), tmp_path, monkeypatch, capsys)
    assert all(torch.equal(plain[name], found[name]) for name in plain)


@RECIPES
def test_a_fit_that_was_stopped_resumes_to_the_same_bits(cache, tmp_path, device, recipe, window):
    config = options(cache, device, recipe, window)
    whole = load_file(fit(config, tmp_path / "whole") / "head.safetensors")
    run = begin(config, lambda _: tmp_path / "cut")
    with stopped_after(2), pytest.raises(KeyboardInterrupt):
        resume(run)
    cut = load_file(resume(run) / "head.safetensors")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.gpu
def test_a_fit_begun_on_a_gpu_goes_on_on_a_cpu_and_back(cache, tmp_path):
    run = begin(options(cache, "cuda", "default", None), lambda _: tmp_path / "r")
    for device, epoch in (("cuda", 1), ("cpu", 2)):
        with stopped_after(epoch), pytest.raises(KeyboardInterrupt):
            resume(run, device)
    resume(run, "cuda")
    assert run.finished


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_in_a_step(cache, tmp_path):
    """With rows that stay, an epoch reads from the GPU at its end only."""
    run = begin(options(cache, "cuda", "default", None), lambda _: tmp_path / "r")
    network, device = initial_network(run), torch.device("cuda")
    loader = network.loader(cache, device)
    fitted = trainer.Trainer(run, network, cache, loader, device, 5)
    rows = [row for row, entry in enumerate(cache.rows) if entry.split == "train"]
    for _ in range(3):
        list(fitted.learn(loader.epoch(rows), 0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(fitted.learn(loader.epoch(rows), 0))
        list(fitted.validate(loader.epoch(rows[:1])))
    finally:
        torch.cuda.set_sync_debug_mode("default")
