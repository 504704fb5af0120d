"""What is wrong with a data set: duplicates, suspect labels, outliers, groups that do badly."""
