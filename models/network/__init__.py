"""The Keras network: architecture, training, calibration, threshold, explanations, tuning."""
