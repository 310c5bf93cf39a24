"""Images: safe fetching of outside URLs, decoding, and the content-addressed store."""
