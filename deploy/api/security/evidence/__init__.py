"""Evidence for compliance reviews, collected from a home: it reads files, and starts nothing."""
