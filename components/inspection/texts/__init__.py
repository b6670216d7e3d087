"""Statistics of texts: words, languages, personal data, shapes."""
