"""How fast the server answers, compared with a bare call of the model and with other servers."""
