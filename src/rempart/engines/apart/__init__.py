"""Programs that run in environments of others, beside the engine they serve; they import nothing of Rempart."""
