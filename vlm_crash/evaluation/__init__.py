"""Prediction and truth files in; scores with counts, baselines and intervals, tables and a page out."""
