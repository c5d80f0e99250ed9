"""Ways to run the graph: here, node by node, or under an orchestrator."""
