"""What is in stock, by name."""

from dataclasses import dataclass, field


@dataclass
class Inventory:
    """Counts and prices of items."""

    counts: dict[str, int] = field(default_factory=dict)
    prices: dict

    def total(self) -> int:
        return sum(self.counts.values())
