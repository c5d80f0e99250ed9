"""What a run costs: ours, the same graph of stock TFX, and the floor. See docs/benchmarks.md."""
