"""A tiny network's pretraining: its images, and what is compared."""

import torch

from textdiff.models.backbones.checkpoints import read_checkpoint

TINY = {
    "image_size": 16,
    "model_channels": 32,
    "channel_mult": [1, 1],
    "num_res_blocks": 1,
    "attention_resolutions": [2],
}


def weights(path):
    return read_checkpoint(path)[0]


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
