"""rempart.toml, environment and options become one frozen tree; nothing else reads settings."""
