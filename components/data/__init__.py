"""Data: sources, formats, columns, splits, streaming and tokenization. Texts are streamed, never all in memory."""
