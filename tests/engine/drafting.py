"""Call costs that do not depend on the machine."""

from __future__ import annotations

from qwen_edge.engine.speculation import MAX_DRAFTS, CallCosts


def fixed_costs(row_cost: float = 0.0) -> CallCosts:
    """Costs as they are after many calls in which a further row took this share of the first."""
    costs = CallCosts()
    for _ in range(100):
        for rows in range(1, MAX_DRAFTS + 2):
            costs.measured(rows, 0.01 * (1 + row_cost * (rows - 1)))
    return costs


class ConstantCosts(CallCosts):
    """Further rows cost nothing, whatever is measured: whoever has a draft uses all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.measured(1, 1.0)
        self.measured(1, 1.0)
        self.ratios = [1.0] * len(self.ratios)

    def measured(self, rows: int, seconds: float) -> None:
        if not self.known:
            super().measured(rows, seconds)
