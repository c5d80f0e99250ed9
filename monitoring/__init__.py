"""Production, watched: what was scored, whether the data and the model still hold, what to do."""
