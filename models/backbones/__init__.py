"""What turns an image into levels of numbers: a file each, and a line each here; ``base`` has what one states."""

__all__ = ["BACKBONES"]

from collections.abc import Mapping
from typing import TYPE_CHECKING

from textdiff.plugins import on_demand, registry

if TYPE_CHECKING:
    from textdiff.models.backbones.base import Backbone

_LITE = "textdiff.models.backbones.efficientnet_lite:"

BACKBONES: Mapping[str, type["Backbone"]] = registry(
    "backbones",
    on_demand(
        {
            "adm-256": "textdiff.models.backbones.adm:ADM",
            "nano-he": "textdiff.models.backbones.adm:ADM",
            "nano-cxr": "textdiff.models.backbones.adm:ADM",
            "untrained:": "textdiff.models.backbones.adm:Untrained",
            "rgb": "textdiff.models.backbones.blurs:Blurs",
            "filters": "textdiff.models.backbones.filters:Filters",
            **{f"efficientnet-lite{n}": f"{_LITE}EfficientNetLite" for n in range(3)},
            **{f"efficientnet-lite{n}:": f"{_LITE}EfficientNetLite" for n in range(3)},
            **{f"untrained:efficientnet-lite{n}": f"{_LITE}Untrained" for n in range(3)},
            "hub:": "textdiff.models.backbones.hub:Hub",
            "sd:": "textdiff.models.backbones.latent:Latent",
        }
    ),
    type,
)
"""The backbones by the names that ``--backbone`` takes; after a colon there stands what the backbone is made of."""
