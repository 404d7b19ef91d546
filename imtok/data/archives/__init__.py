"""Files that hold many images: tars, zip files and Parquet."""
