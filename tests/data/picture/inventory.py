"""What is in stock, by name."""

from dataclasses import dataclass, field


@dataclass
class Inventory:
    """Counts of items."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, count: int = 1) -> None:
        self.counts[name] = 

    def total(self) -> int:
        return sum(self.counts.values())
