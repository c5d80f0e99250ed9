"""Turns files of transactions into examples with features. See docs/ingestion.md.

`source` plans what a run reads, `reader` reads files, `values` checks and converts their values,
`blocks` divides rows into blocks and partitions, `partitions` computes features of partitions,
`stages` makes examples on Beam and `example_writer` writes them; `to_score` and, on Beam, `scoring`
prepare and score transactions.
"""
