"""How a model is evaluated: metrics, and what the Evaluator measures and requires."""
