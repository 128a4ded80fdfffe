"""Features that other programs wrote: NumPy arrays and Parquet list columns, with Parquet metadata."""
