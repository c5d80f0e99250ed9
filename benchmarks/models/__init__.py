"""The network beside other models, on the same features and folds: see `compare`."""
