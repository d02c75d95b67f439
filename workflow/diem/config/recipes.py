"""Recipes: what an experiment says where it says nothing itself."""

from typing import Any

__all__ = ["RECIPES"]

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "fast": {
        "e_step": {
            "sampler": {"name": "ddpm", "steps": 8, "spacing": "karras", "spread": "last"},
            "limit": 1.5,
            "restart": [4.0, 0.5],
            "restart_residual": 5.0,
            "final": 4,
        },
        "m_step": {"ema": 0.999, "ema_warmup": True, "final": 3, "final_decay": True},
    },
}
"""What an experiment's ``recipe`` says where the experiment itself says nothing.

The schema's defaults are the paper's. Each part of the fast recipe is explained in
``config/README.md``, and ``benchmarks/evidence.md`` has what they buy.
"""
