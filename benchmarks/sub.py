"""A model as sub model: short texts whose kind it is asked for, one in a call, by a schema.

`python benchmarks/sub.py --model local`.

The texts are those of the easy tasks that take reading. Prints how many it has right, by set, and seconds a
call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

from rlm_kernel.bench import small_texts
from rlm_kernel.config import load_api_keys, load_settings
from rlm_kernel.models.factory import open_models

SETS = {
    "reviews: positive, negative": small_texts.FEELINGS,
    "requests: billing, delivery, login": small_texts.REQUESTS,
    "letters: angry, calm": small_texts.MOODS,
    "sentences: four languages": small_texts.TELLTALE,
}


async def measure(model: str) -> None:
    settings = load_settings(None, {"root_llm.model": model})
    async with open_models(settings, print) as models:
        for name, texts in SETS.items():
            kinds = list(texts)
            schema = {"enum": kinds}
            right = asked = 0
            began = time.perf_counter()
            for kind, text in [(kind, text) for kind, found in texts.items() for text in found]:
                fit = f"Reply with JSON alone, which fits this JSON schema:\n{json.dumps(schema)}"
                prompt = f"Is this {' or '.join(kinds)}? {text}\n\n{fit}"
                reply = await models.complete(
                    [{"role": "user", "content": prompt}], role="sub", schema=schema
                )
                right += reply.text.strip().strip('"') == kind
                asked += 1
            print(
                f"{name:40} {right:3} of {asked:3}  {(time.perf_counter() - began) / asked:.2f} s a call",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="local")
    load_api_keys()
    asyncio.run(measure(parser.parse_args().model))


if __name__ == "__main__":
    main()
