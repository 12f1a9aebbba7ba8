"""Keys and what is sealed under them: the tree of record keys, bodies, the keystore, the vault."""
