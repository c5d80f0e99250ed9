"""The protocols of the server, and what they share."""
