"""Serving: the server, the scorer, and the state that it computes features from."""
