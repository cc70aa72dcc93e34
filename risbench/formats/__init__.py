"""Foreign formats, one file each: pure functions that read or write them. They import core only."""
