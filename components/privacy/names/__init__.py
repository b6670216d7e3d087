"""Models that find names, addresses and organisations: one for English, one for Chinese (extra `privacy`)."""
