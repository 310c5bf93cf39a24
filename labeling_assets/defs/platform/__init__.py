"""What holds for the whole code location, whatever domain a run or a check belongs to."""
