"""What the benchmarks of this folder share: rounds, the work, who does it, the goals, and how results are shown."""
