"""Looks at data that nobody has described yet, and proposes a configuration for it.

`sample` reads some of it, `columns` describes each column, `roles` guesses what the columns are,
`proposal` turns that into a configuration with its reasons.
"""
