"""Compares the network with other models on the same features and folds: see `compare`."""
