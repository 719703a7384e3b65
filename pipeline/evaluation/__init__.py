"""What `score` consists of: metrics beyond Dice and IoU, intervals, tables, figures."""
