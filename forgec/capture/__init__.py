"""Sources of models → forge: torch.export's graph, one forge op for each source op, with its place in the user's
model."""
