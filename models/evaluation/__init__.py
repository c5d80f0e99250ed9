"""How a model is judged: metrics, and what the Evaluator is told to measure and demand."""
