"""What exists, what must be true of it, and when it runs. No SQL, prompt, tensor or HTTP here."""
