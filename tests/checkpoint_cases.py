"""Small networks of two generations, with weights that are drawn."""

import torch

from textdiff.models.backbones.unet import UNet

NEW = {
    "image_size": 64,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 6,
    "num_res_blocks": 2,
    "attention_resolutions": [2, 4],
    "channel_mult": [1, 2, 2],
    "num_heads": 4,
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "use_new_attention_order": False,
}
OLD = NEW | {
    "num_head_channels": -1,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "out_channels": 3,
    "num_res_blocks": 1,
}


def build(config):
    torch.manual_seed(0)
    unet = UNet(**config)
    for p in unet.parameters():
        torch.nn.init.normal_(p, std=0.05)
    return unet.eval()


def under(prefix):
    return lambda state: {prefix + name: entry for name, entry in state.items()}


def assert_same(loaded, state):
    assert list(loaded) == list(state)
    assert [name for name in state if not torch.equal(loaded[name], state[name])] == []
