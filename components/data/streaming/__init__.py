"""Block-wise streaming of rows, in process or on Ray Data."""
