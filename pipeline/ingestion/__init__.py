"""Turns files of transactions into examples with features. See docs/ingestion.md.

`source` plans what a run reads, `reader` reads files, `values` checks and converts their values,
`blocks` divides rows into blocks and partitions, `stages` computes features on Beam,
`example_writer` writes examples.
"""
