"""Texts of many kinds, and how many tokens real tokenizers make of them."""

from __future__ import annotations

import json

from tests.support.tongues import TONGUES

_ENGLISH = (
    "The committee met on Tuesday to look again at the plans for the harbour. Nobody had expected the costs to rise "
    "so fast, and several members asked why the first estimate had left out the new bridge. The engineer answered "
    "that the river had been measured in summer, when it carries less than half of its usual water. After a long "
    "discussion they agreed to wait for a second opinion, and to publish both reports before the end of the year.\n"
)
_HINDI = (
    "समिति की बैठक मंगलवार को हुई, और उसमें बंदरगाह की योजना पर फिर से विचार किया गया। किसी को आशा नहीं थी कि खर्च इतनी "
    "जल्दी बढ़ जाएगा। इंजीनियर ने कहा कि नदी की माप गर्मी में ली गई थी, जब उसमें आधे से भी कम पानी होता है। लंबी चर्चा के बाद "
    "सबने दूसरी राय की प्रतीक्षा करने का निर्णय किया।\n"
)
_CODE = '''def merge(left: list[int], right: list[int]) -> list[int]:
    """Merge two sorted lists into one."""
    found: list[int] = []
    while left and right:
        if left[0] <= right[0]:
            found.append(left.pop(0))
        else:
            found.append(right.pop(0))
    return [*found, *left, *right]


class HttpClient(BaseClient):
    def __init__(self, base_url: str, *, timeout: float = 30.0, max_retries: int = 3) -> None:
        super().__init__(base_url=base_url)
        self._timeout = timeout
        self._max_retries = max_retries

    async def get_json(self, path: str, **params: Any) -> dict[str, Any]:
        response = await self._request("GET", f"{self.base_url}/{path}", params=params)
        if response.status_code >= 400:
            raise HttpError(response.status_code, await response.text())
        return json.loads(response.content)
'''
_CHAT = (
    "see you at 8 👍",
    "great news 🎉🎉",
    "on my way 🚀",
    "thanks ❤️",
    "where are you? 😂",
    "😀🔥💯🙏🥺",
    "✨🌍🍕🐶😭",
)


def _log(number: int) -> str:
    at = f"2026-01-{number % 28 + 1:02}T{number % 24:02}:{number * 7 % 60:02}:{number * 13 % 60:02}.{number * 37 % 1000:03}Z"
    return (
        f"{at} INFO  [worker-{number % 8}] request id={number * 7919 % 99991:05x} GET /api/v1/orders/{number * 31 % 9973} "
        f"status={(200, 404, 500)[number % 3]} took {number * 17 % 930}ms\n"
    )


TEXTS: dict[str, str] = {
    "English": _ENGLISH,
    "code": _CODE,
    "log": "".join(map(_log, range(20))),
    "JSON": json.dumps(
        [
            {"id": n, "name": f"user{n}", "score": n * 137 / 100, "ok": n % 2 == 0, "city": "Lyon"}
            for n in range(20)
        ]
    ),
    "table of numbers": "".join(
        f"{n},{n * 7919 / 1000},{n * 104729 % 9973},{n * 31 / 7:.2f}\n" for n in range(60)
    ),
    "emoji": "\n".join(_CHAT * 4),
    "Hindi": _HINDI,
    **{name: text for name, (_, text) in TONGUES.items()},
}
TOKENIZERS = ("o200k", "cl100k", "Gemini", "Claude 2", "Qwen 3", "DeepSeek 3")
COUNTS: dict[str, tuple[int, ...]] = {
    "English": (88, 88, 89, 89, 88, 88),
    "code": (221, 219, 269, 248, 222, 226),
    "log": (872, 872, 1238, 893, 1199, 895),
    "JSON": (662, 662, 692, 621, 712, 662),
    "table of numbers": (750, 750, 1287, 750, 1287, 750),
    "emoji": (183, 251, 151, 255, 179, 215),
    "Hindi": (81, 283, 101, 302, 260, 165),
    "German": (56, 72, 53, 86, 71, 73),
    "French": (60, 75, 63, 89, 72, 74),
    "Spanish": (51, 63, 49, 74, 61, 61),
    "Portuguese": (49, 66, 50, 70, 59, 64),
    "Italian": (62, 70, 55, 89, 64, 65),
    "Swedish": (62, 87, 60, 89, 87, 80),
    "Danish": (69, 81, 71, 93, 81, 85),
    "Finnish": (65, 93, 67, 104, 93, 86),
    "Icelandic": (69, 106, 87, 111, 103, 105),
    "Polish": (89, 102, 77, 127, 91, 89),
    "Czech": (89, 115, 86, 127, 115, 99),
    "Slovak": (83, 108, 79, 115, 107, 99),
    "Hungarian": (90, 105, 85, 118, 104, 102),
    "Romanian": (81, 94, 77, 109, 92, 96),
    "Turkish": (82, 110, 82, 124, 89, 115),
    "Lithuanian": (82, 111, 82, 120, 106, 99),
    "Russian": (63, 109, 64, 130, 80, 88),
    "Ukrainian": (91, 144, 93, 154, 121, 115),
    "Bulgarian": (87, 139, 79, 144, 124, 103),
    "Greek": (82, 192, 91, 243, 189, 108),
    "Hebrew": (66, 165, 73, 155, 65, 80),
    "Arabic": (53, 124, 58, 166, 57, 63),
    "Thai": (56, 134, 47, 246, 70, 52),
    "Chinese": (53, 75, 43, 72, 42, 38),
    "Chinese, traditional": (59, 95, 49, 91, 50, 43),
    "Japanese": (70, 97, 44, 89, 56, 61),
    "Korean": (63, 106, 78, 115, 68, 79),
}
"""What these tokenizers count in each text: benchmarks/tokens.py."""
