"""Parts of a page: its shell with the style, tables, bars and charts. No script, no network."""
