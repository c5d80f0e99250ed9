"""The curated schema: what every transaction must look like, reviewed like code."""
