"""The environments that `make test-engines` runs real engines in: made when they are not there, else left as they are.

They lie in `$REMPART_ENGINES_CACHE`, or in the user's cache, outside the checkout. Exits with 3 when one fails.
"""

from __future__ import annotations

import sys

from rempart.bench.environments import (
    LOCKS,
    EnvironmentMissing,
    engines_cache,
    engines_python,
    environment,
    make,
    size_bytes,
)

NAMES = ("vllm", "transformers", "triton")


def main(names: list[str]) -> int:
    """Those named, or all."""
    cache = engines_cache()
    for name in names or NAMES:
        try:
            wanted = environment(name, LOCKS / f"{name}.lock", cache)
            if wanted.whole:
                print(f"{name}: is there, {size_bytes(wanted.place) / 1e6:,.0f} MB in {wanted.place}", flush=True)
            else:
                make(wanted, engines_python(), lambda line: print(line, flush=True))
        except EnvironmentMissing as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
