"""The cost of a run: ours, the same graph in stock TFX, and the floor. See docs/benchmarks.md."""
