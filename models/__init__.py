"""What is learned: preprocessing, network, training, and how a model is judged."""
