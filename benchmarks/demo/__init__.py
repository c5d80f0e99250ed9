"""Four ways to look after a model, side by side over one history; see docs/demo.md."""
