"""How well parsed answers match the truth: pure counts, a text similarity, and a torchmetrics Metric around both."""
