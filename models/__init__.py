"""The model: preprocessing, network, training, export and evaluation."""
