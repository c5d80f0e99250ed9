"""The transaction simulator, and a sample of its output."""
