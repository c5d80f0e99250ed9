"""Pages for people, made from a run's artifacts. Pure functions: no TFX, no ML Metadata."""
