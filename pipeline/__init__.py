"""The production pipeline: configuration, windows, graph, components, runners, command."""
