"""CSV and TSV: reader, header and delimiter, and irregular quotes."""
