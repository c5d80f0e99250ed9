"""Turns files of transactions into examples with features. See docs/ingestion.md.

`source` plans what a run reads, `reader` reads files, `values` checks and converts their values,
`stages` computes features on Beam, `example_writer` writes examples.
"""
