"""Sends finished runs and backtests to MLflow; decides nothing.

`facts` reads what is worth sending from ML Metadata and the root, `mirror` sends it, and
`fraud_mlflow_model` is copied next to each SavedModel, so that MLflow can load it.
"""
