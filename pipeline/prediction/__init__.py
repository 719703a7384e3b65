"""What `predict` and `next` consist of: inputs, preprocessing, the predictor, output files, the ranking."""
