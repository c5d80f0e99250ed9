"""The simulator of transactions, and a sample of what it makes."""
