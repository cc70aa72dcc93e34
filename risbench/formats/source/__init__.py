"""What every reader stands on: the files of a source, the rows that readers return, and how boxes are scaled."""
