"""Point-in-time features of transactions; docs/features.md describes every family."""
