"""Records and pixels become batches."""
